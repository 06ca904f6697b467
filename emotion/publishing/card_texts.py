"""What model cards say of every classifier of expressions, and of FER2013, which most are trained on."""

USE = """## Use

```python
import emotion

model = emotion.load("hub:{repo}")
for face in model.predict("photo.jpg"):  # a path, an array, or a list of such
    print(face.label, round(face.probability, 3), face.box)
```

or `python -m emotion.predict source=photo.jpg checkpoint=hub:{repo}`. Only `model.safetensors` and
`config.json` are fetched; there is no pickle, and nothing in them can run."""

USE_ONNX = """Without this package or PyTorch, the ONNX file takes faces that are cut out already, as they are, uint8:

```python
import numpy as np
import onnxruntime
from huggingface_hub import hf_hub_download
from PIL import Image

classes = {classes}
session = onnxruntime.InferenceSession(hf_hub_download("{repo}", "model.onnx"))
face = Image.open("face.png").convert("{mode}").resize(({side}, {side}))
(probabilities,) = session.run(["probabilities"], {{"faces": np.asarray(face)[None]}})
print(dict(zip(classes, probabilities[0].tolist())))
```"""

INTENDED = """## Intended use

For research on and teaching of facial-expression recognition, for comparing methods, and for demonstrations to people
who know of it and agree.

Not for decisions about people: not for hiring, grading, policing, border control, insurance, advertising or lie
detection, nor for medical or psychological judgement. In the European Union, AI systems that infer people's emotions at
workplaces and in schools are prohibited but for medical and safety reasons (AI Act, Regulation (EU) 2024/1689, Article
5(1)(f)); other uses may fall under duties of that law and of data protection."""

LIMITS = """## Limits and bias

- An expression is not a feeling: people scowl when they concentrate and smile when they are sad, and differently in
  different situations and cultures ([Barrett et al. 2019](https://doi.org/10.1177/1529100619832930)). The network names
  what a face looks like to those who labelled such pictures.
- It knows no other classes: whatever it is shown, also no face at all, gets one of these names.
- How well it does for people of different age, gender, skin or disability was not measured."""

FER2013 = """The faces come from FER2013 ([Goodfellow et al. 2013](https://arxiv.org/abs/1307.0414)). Known of it:

- **Origin.** Web images, found by search words for emotions, many of them posed or acted, cut to 48x48 grey pixels.
  Nobody recorded who they show or what those people felt.
- **Labels.** People agree with them on 65 ± 5 % of the faces. 57 groups of equal pictures bear conflicting labels; most
  of FER+'s ten taggers saw no face in 177 pictures; 12 are of one single grey.
- **Duplicates.** Of 35,887 pictures 1,853 are exact copies of others, and some stand in both training and test: hence
  the scores on faces that are not in training.
- **Imbalance.** Of 28,709 training faces 7,215 are happy and 436 disgusted. The rarer a class, the less its figures are
  to be trusted."""

FERPLUS = """The labels are not FER2013's own but FER+'s: what the votes of ten people said of each face
([Barsoum et al. 2016](https://arxiv.org/abs/1608.01041)). What is said above of labels and
classes is of FER2013's own."""

ANOTHER_FORM = """These counts are of the published `fer2013.csv`. The data here was another file or form of it, which
may differ."""

DRAWN = """The faces were drawn by a program, which moves their brows, eyes and mouths. Nothing was learnt from people,
and nothing about people follows."""

OTHER = """Of the pictures that it was trained on no more is known here than stands under *Training*. Whoever they do
not show, and whatever their labels got wrong, the network knows no better."""

FILES = {
    "model.safetensors": "the weights",
    "config.json": "network, input, classes, temperature, data settings; the record of the run with all its scores",
    "model.onnx": "raw uint8 faces to calibrated probabilities",
    "label_map.json": "classes by output, and outputs by class",
}
