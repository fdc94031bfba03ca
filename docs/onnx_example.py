"""Class map of an image by an exported network: python onnx_example.py MODEL.onnx IMAGE OUTPUT.png

Needs onnxruntime, numpy and Pillow, and nothing else of this repository.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image

path_model, path_image, path_output = sys.argv[1:]
session = onnxruntime.InferenceSession(path_model, providers=onnxruntime.get_available_providers())
metadata = session.get_modelmeta().custom_metadata_map
image = Image.open(path_image).convert("RGB")

# The network has seen images of about the grid's size: bring this one there, as it is shaped.
grid, factor = json.loads(metadata["grid"]), 1.0
if grid["longer_side"]:
    factor = grid["longer_side"] / max(image.size)
elif grid["size"]:
    factor = math.sqrt(math.prod(grid["size"]) / math.prod(image.size))
size = [max(round(length * factor) // grid["downsample"], 1) for length in image.size]
images = np.asarray(image.resize(size, Image.Resampling.BILINEAR))[None]  # (1, h, w, 3) uint8

(logits,) = session.run(["logits"], {"images": images})  # (1, C, h, w) float32
maps = [Image.fromarray(m).resize(image.size, Image.Resampling.BILINEAR) for m in logits[0]]
labels = Image.fromarray(np.argmax(maps, axis=0).astype(np.uint8))  # (H, W), class indices
labels.putpalette(np.array(json.loads(metadata["palette"]), np.uint8).tobytes())
labels.save(path_output)
