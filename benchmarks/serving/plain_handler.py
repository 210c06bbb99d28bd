"""A model behind FastAPI as tutorials write it: Pillow, torchvision's transforms, eager torch, one image at a time.

    python plain_handler.py RUN PORT [async|def]

`async`: the handler is `async def`, as in most tutorials, so that nothing else runs while the model does. `def`:
FastAPI runs it in a pool of threads.
"""

import io
import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

from classwise.run.checkpoint import read_checkpoint
from classwise.run.folder import RunFolder
from classwise.run.predictor import Predictor


class Plain(torch.nn.Module):
    """The backbone and its head without classwise's own preprocessing, as a user would have loaded them."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.backbone = predictor.model.backbone
        self.head = predictor.model.heads[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.backbone(images))
        return outputs


def main() -> None:
    run, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    predictor = Predictor.of(read_checkpoint(RunFolder(Path(run)).checkpoints / "best"))
    properties = predictor.model.metadata
    labels = list(predictor.targets[0].labels)
    model = Plain(predictor).eval()
    transform = transforms.Compose(
        [
            transforms.Resize(properties.image_size),
            transforms.ToTensor(),
            transforms.Normalize(properties.mean, properties.std),
        ]
    )
    app = FastAPI()

    def answer(data: bytes) -> dict[str, object]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        batch = transform(image).unsqueeze(0)
        with torch.no_grad():
            probabilities = torch.softmax(model(batch), dim=1)[0]
        best = int(probabilities.argmax())
        return {
            "label": labels[best],
            "probabilities": dict(zip(labels, probabilities.tolist(), strict=True)),
        }

    if kind == "async":

        @app.post("/predict")
        async def predict(file: UploadFile) -> dict[str, object]:
            return answer(await file.read())

    else:

        @app.post("/predict")
        def predict(file: UploadFile) -> dict[str, object]:
            return answer(file.file.read())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
