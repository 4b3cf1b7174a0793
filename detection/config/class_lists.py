"""The class lists of three public benchmarks, in their usual order, and what names of classes may be."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from backbones.errors import first_names, name_fault, shorten
from detection.errors import ConfigError, did_you_mean

MAX_CLASSES = 20_000
"""Far more than any data set has. The last layer of a detector has 5 x 2048 weights for each."""

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

# In the order of the development kit's ids, from 1; their underscores are blanks.
ILSVRC_DET_CLASSES = (
    "accordion", "airplane", "ant", "antelope", "apple", "armadillo", "artichoke", "axe", "baby bed", "backpack",
    "bagel", "balance beam", "banana", "band aid", "banjo", "baseball", "basketball", "bathing cap", "beaker", "bear",
    "bee", "bell pepper", "bench", "bicycle", "binder", "bird", "bookshelf", "bow tie", "bow", "bowl", "brassiere",
    "burrito", "bus", "butterfly", "camel", "can opener", "car", "cart", "cattle", "cello", "centipede", "chain saw",
    "chair", "chime", "cocktail shaker", "coffee maker", "computer keyboard", "computer mouse", "corkscrew", "cream",
    "croquet ball", "crutch", "cucumber", "cup or mug", "diaper", "digital clock", "dishwasher", "dog", "domestic cat",
    "dragonfly", "drum", "dumbbell", "electric fan", "elephant", "face powder", "fig", "filing cabinet", "flower pot",
    "flute", "fox", "french horn", "frog", "frying pan", "giant panda", "goldfish", "golf ball", "golfcart",
    "guacamole", "guitar", "hair dryer", "hair spray", "hamburger", "hammer", "hamster", "harmonica", "harp",
    "hat with a wide brim", "head cabbage", "helmet", "hippopotamus", "horizontal bar", "horse", "hotdog", "iPod",
    "isopod", "jellyfish", "koala bear", "ladle", "ladybug", "lamp", "laptop", "lemon", "lion", "lipstick", "lizard",
    "lobster", "maillot", "maraca", "microphone", "microwave", "milk can", "miniskirt", "monkey", "motorcycle",
    "mushroom", "nail", "neck brace", "oboe", "orange", "otter", "pencil box", "pencil sharpener", "perfume", "person",
    "piano", "pineapple", "ping-pong ball", "pitcher", "pizza", "plastic bag", "plate rack", "pomegranate", "popsicle",
    "porcupine", "power drill", "pretzel", "printer", "puck", "punching bag", "purse", "rabbit", "racket", "ray",
    "red panda", "refrigerator", "remote control", "rubber eraser", "rugby ball", "ruler", "salt or pepper shaker",
    "saxophone", "scorpion", "screwdriver", "seal", "sheep", "ski", "skunk", "snail", "snake", "snowmobile", "snowplow",
    "soap dispenser", "soccer ball", "sofa", "spatula", "squirrel", "starfish", "stethoscope", "stove", "strainer",
    "strawberry", "stretcher", "sunglasses", "swimming trunks", "swine", "syringe", "table", "tape player",
    "tennis ball", "tick", "tie", "tiger", "toaster", "traffic light", "train", "trombone", "trumpet", "turtle",
    "tv or monitor", "unicycle", "vacuum", "violin", "volleyball", "waffle iron", "washer", "water bottle",
    "watercraft", "whale", "wine bottle", "zebra",
)  # fmt: skip

# COCO's name of a class -> Pascal VOC's name of the same class.
_VOC_NAMES = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def canonical_name(name: str) -> str:
    """VOC's name of a class that COCO names differently; any other name unchanged."""
    return _VOC_NAMES.get(name, name)


def resolve_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The K names in the order of the labels; "voc", "coco" and "ilsvrc_det" are those benchmarks' lists.

    Raises ConfigError for another word, and for a list that `check_class_names` refuses.
    """
    if not isinstance(classes, str):
        return check_class_names(classes)
    named = {"voc": VOC_CLASSES, "coco": COCO_CLASSES, "ilsvrc_det": ILSVRC_DET_CLASSES}
    if classes == "auto":
        raise ConfigError(
            "data.classes is auto: the names are in the data, which `detection.data.settle.settle_config` reads, but not here"
        )
    if classes not in named:
        raise ConfigError(f"classes must be 'voc', 'coco', 'ilsvrc_det' or a list of names, got {shorten(classes)}")
    return named[classes]


def list_names(names: Sequence[str]) -> str:
    """Names of classes for a message, of very many the first: "cat, dog"."""
    shown = 80  # all of COCO's
    return ", ".join(names[:shown]) + (f", ... and {len(names) - shown} more" if len(names) > shown else "")


def check_class_names(names: Iterable[object], what: str = "the classes") -> tuple[str, ...]:
    """The names, each of which `name_fault` has nothing against, all different, at most `MAX_CLASSES`.

    Names count as equal where they look alike: blanks around them and Unicode's ways to write one character do not matter.
    Raises ConfigError naming the first that cannot be one; `what` says in it what the names are of.
    """
    checked: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        fault = name_fault(name)
        if fault is not None or not isinstance(name, str):
            raise ConfigError(f"class name {number} {fault}")
        if number > MAX_CLASSES:
            raise ConfigError(f"{what} are more than {MAX_CLASSES}")
        looks = unicodedata.normalize("NFC", name.strip())
        if looks in checked:
            raise ConfigError(
                f"{what} must be a list of different names, but class name {number}, {shorten(name)}, comes twice"
            )
        checked[looks] = name
    return tuple(checked.values())


def check_renamed_and_dropped(
    rename: Mapping[str, str], drop: str | Collection[str], classes: Collection[str] | None = None
) -> None:
    """Raise ConfigError where `data.rename` and `data.drop` contradict each other or the classes.

    `classes` is None where they are yet to be read from the data or a file.
    """
    dropped, known = () if isinstance(drop, str) else drop, set(rename.values() if classes is None else classes)
    for name in dropped:
        if name in rename:
            raise ConfigError(f"data.drop and data.rename both name {shorten(name)}: it is left out or renamed, take one away")
        if name in known:
            raise ConfigError(f"data.drop names {shorten(name)}, which is a class: take it out of one of the two")
    for old, new in rename.items():
        if new not in known:
            similar = did_you_mean(new, known)
            raise ConfigError(f"data.rename makes {shorten(new)} of {shorten(old)}, which is no class{similar}")


def check_known_classes(known: Collection[str] | None, key: str, classes: Collection[str]) -> None:
    """Raise ConfigError where the classes that a source knows are not among all; `key` says in it where they stand."""
    names = frozenset(classes)
    unknown = next((name for name in known or () if name not in names), None)
    if unknown is not None:
        similar = did_you_mean(unknown, classes, f"the classes are {first_names(list(classes))}")
        raise ConfigError(f"{key} names {shorten(unknown)}, which is no class{similar}")
