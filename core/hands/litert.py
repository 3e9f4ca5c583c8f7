"""One of MediaPipe's models, run by LiteRT: a picture in, arrays out."""

import hashlib
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from core.hands.quiet import quiet_stderr
from core.runs.errors import UserError

MODELS = Path(__file__).parent / "models"
SHA256 = {
    "palm_detection_full.tflite": "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    "hand_landmark_full.tflite": "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
}


class Model:
    """A network that takes one square RGB picture.

    One thread: the project's passes over pictures run one process a core, and a second thread in each gains nothing.
    """

    def __init__(self, name: str) -> None:
        """Raises UserError where the model's file is missing or damaged."""
        self.content = model_content(MODELS / name)  # kept: the interpreter reads from it
        with quiet_stderr():
            self.interpreter = Interpreter(model_content=self.content, num_threads=1)
            self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.outputs = [output["index"] for output in self.interpreter.get_output_details()]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the model's order, for a picture (size, size, 3) float32 from 0 to 1."""
        self.interpreter.set_tensor(self.input, picture[None])
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(output)[0] for output in self.outputs]


def model_content(path: Path) -> bytes:
    """The bytes of a model's file.

    Raises:
        UserError: it is missing, or not the file that belongs there.
    """
    mend = f"restore it: git checkout -- {path}, or install the project anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the hand model can't be read ({error.strerror}); {mend}") from None
    if hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        raise UserError(f"{path}: the hand model is damaged (its SHA-256 sum is wrong); {mend}")
    return content
