"""From a picture to faces and their emotions: the one path that predict, the demo and `emotion.load` share."""
