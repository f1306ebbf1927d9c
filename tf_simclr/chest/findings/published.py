"""What papers report on the official test split of ChestX-ray14: mean AUCs of its fourteen findings.

Xiao, Bai, Yuille and Zhou, Delving into Masked Autoencoders for Multi-Label Thorax Disease Classification, WACV 2023,
arXiv:2210.12843, Table 1: all of them fine-tuned at 224 px on train_val_list.txt and tested on test_list.txt.  What
each was pretrained on is said by the authors' list of that table's checkpoints.
"""

SOURCE = "Xiao et al., WACV 2023, arXiv:2210.12843, Table 1"
ROWS = (
    ("DenseNet-121, labels of ImageNet", 0.822),
    ("ResNet-50, MoCo v2 on ImageNet", 0.809),
    ("ResNet-50, BYOL on ImageNet", 0.810),
    ("ResNet-50, SwAV on ImageNet", 0.815),
    ("ViT-B/16, MAE on 0.5 million radiographs", 0.830),
)
"""Network and pretraining → mean AUC."""
TEST_IMAGES = 25_596
"""Of the official test split."""


def comparable(*, images: int, findings: int, official: bool, made_up: bool) -> bool:
    """Whether numbers may stand beside these: all findings of all images of the official test split."""
    return official and not made_up and images == TEST_IMAGES and findings == 14
