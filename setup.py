"""Packaging of resdet: two import packages and one command."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="resdet",
    version="0.1.0",
    description="Object detection on ResNet backbones: the whole system of 'Deep Residual Learning', in plain PyTorch",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["backbones", "backbones.*", "detection", "detection.*"]),
    package_data={"backbones": ["py.typed"], "detection": ["py.typed"]},
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
        "filelock>=3.12",
        "matplotlib>=3.8",
        "rich>=13",
        "tensorboard>=2.16",
        "safetensors>=0.4",
    ],
    extras_require={
        # scikit-learn bundles the handwritten digits and photographs of the sample data.
        "sample": ["scikit-learn>=1.4"],
        # What tools/export.py writes ONNX with, and runs it with to check it.
        "export": ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"],
        # Its classification networks as backbones: `backbone: timm/resnet50d`.
        "timm": ["timm>=1.0"],
        # `make docs`: the site and its API reference.
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "dev": [
            "fvcore>=0.1.5",
            "scikit-learn>=1.4",
            "timm>=1.0",
            "onnx>=1.16",
            "onnxscript>=0.2",
            "onnxruntime>=1.18",
            "pytest>=8",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.10",
            "types-PyYAML",
            "pre-commit>=3.7",
            "mkdocs-material>=9.5",
            "mkdocstrings[python]>=0.26",
        ],
    },
    entry_points={"console_scripts": ["resdet=detection.cli.main:main"]},
)
