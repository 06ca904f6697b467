"""From images and videos to faces and their expressions; shared by predict, the demo and `emotion.load`."""
