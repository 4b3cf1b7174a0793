"""Packaging of resdet: two import packages, the configs as data, and one command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def long_description(readme: str) -> str:
    """The README for a package index, where its relative pictures and links would lead nowhere.

    Pictures go, with the line in italics below them; of a relative link its text stays.
    """
    without_pictures = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n(\*[^*\n]+\*\n\n)?", "", readme, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", without_pictures)


EXTRAS = {
    # scikit-learn bundles the handwritten digits and photographs of the sample data.
    "sample": ["scikit-learn>=1.4"],
    # What tools/export.py writes ONNX with, runs it with to check it, and quantises it with; `resdet predict --runtime onnx`.
    "export": ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"],
    # `resdet predict --runtime openvino`: its CPU kernels for exported detectors, in float32, bfloat16 and int8.
    "openvino": ["openvino>=2025.0", "onnx>=1.16"],
    # Its classification networks as backbones: `backbone: timm/resnet50d`.
    "timm": ["timm>=1.0"],
    # Detections as `supervision.Detections`. Its older releases ask for opencv-python.
    "supervision": ["supervision>=0.31"],
    # `resdet track`. The fork of norfair that is kept; norfair itself needs numpy 1.
    "track": ["norfair-enough>=2.4"],
    # Videos in H.264, which browsers play.
    "video": ["av>=14.2"],
    # Photographs of telephones: .heic
    "heif": ["pillow-heif>=0.20"],
    # Trackers of experiments: `resdet train --track wandb`. Of MLflow the client, and what it needs for a local database.
    "wandb": ["wandb>=0.19"],
    "mlflow": ["mlflow-skinny>=2.14", "sqlalchemy>=2", "alembic>=1.13"],
    # `make docs`: the site and its API reference.
    "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
}
DEVELOPMENT = [
    "fvcore>=0.1.5",
    "pytest>=8",
    "pytest-xdist>=3.6",  # `make test` on all cores
    "hypothesis>=6.100",
    "optuna>=4",  # docs/examples/optuna_search.py
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
    "playwright>=1.49",  # the pages in a real browser, which the machine has to have: Chromium
    "pre-commit>=3.7",
    "setuptools>=70.1",  # the oldest that builds a wheel by itself: the tests build one without a network
]

if __name__ == "__main__":
    setup(
        name="resdet",
        version="0.1.0",
        description="Object detection on ResNet backbones: the whole system of 'Deep Residual Learning', in plain PyTorch",
        long_description=long_description((ROOT / "README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
        author="The resdet authors",
        license="MIT",
        license_files=["LICENSE", "detection/templates/uplot/LICENSE"],
        keywords=["object detection", "Faster R-CNN", "ResNet", "PyTorch", "computer vision", "COCO", "Pascal VOC"],
        classifiers=[
            "Development Status :: 4 - Beta",
            "Environment :: Console",
            "Intended Audience :: Developers",
            "Intended Audience :: Science/Research",
            "Operating System :: OS Independent",
            "Programming Language :: Python :: 3",
            "Programming Language :: Python :: 3 :: Only",
            "Programming Language :: Python :: 3.10",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Topic :: Scientific/Engineering :: Artificial Intelligence",
            "Topic :: Scientific/Engineering :: Image Recognition",
            "Typing :: Typed",
        ],
        python_requires=">=3.10",
        packages=[*find_packages(include=["backbones", "backbones.*", "detection", "detection.*"]), "detection.configs"],
        # The folder stays at the top of a checkout; detection/config/packaged.py looks in both places.
        package_dir={"detection.configs": "configs"},
        package_data={
            "backbones": ["py.typed"],
            "detection": ["py.typed", "templates/*.html", "templates/*.css", "templates/*/*"],
            "detection.configs": ["*.yaml", "*/*.yaml"],
        },
        install_requires=[
            "torch>=2.6",
            "torchvision>=0.21",
            "numpy>=1.26",
            "pydantic>=2.7",
            "PyYAML>=6",
            "albumentations>=2.0.5,<3",
            "opencv-python-headless>=4.9",
            "pycocotools>=2.0.8",
            "faster-coco-eval>=1.6.5",
            "filelock>=4.1",
            "matplotlib>=3.8",
            "jinja2>=3.1",
            "rich>=13",
            "tensorboard>=2.16",
            "safetensors>=0.4",
        ],
        extras_require=EXTRAS | {"dev": [package for extra in EXTRAS.values() for package in extra] + DEVELOPMENT},
        entry_points={"console_scripts": ["resdet=detection.cli.main:main"]},
    )
