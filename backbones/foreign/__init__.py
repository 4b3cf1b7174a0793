"""Classification nets of timm and torchvision as backbones."""
