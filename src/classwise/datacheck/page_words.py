"""The words of check.html for people who see such a check for the first time."""

from classwise.datacheck.finding import INFO, SEVERE, WARNING

SEVERITY_TITLES = {SEVERE: "Severe", WARNING: "Warning", INFO: "Info"}
SEVERITY_MEANINGS = {
    SEVERE: "makes a score wrong, or training fail. Resolve it first.",
    WARNING: "is likely a fault in the data. Look at it.",
    INFO: "is good to know, and often as it should be.",
}
MEANINGS = {
    "exact-copy": "The same image more than once, byte for byte or pixel for pixel. Where copies are in training and in"
    " validation or test, the score is partly memory.",
    "near-copy": "Almost the same image: resized, compressed again, cropped, mirrored, turned or brightened. Keep the"
    " rows of such a group in one split.",
    "label-conflict": "Copies of one image that have different labels. At most one of them is right.",
    "label-error": "A model that has not seen the row expects another label. Ranked from the likeliest error down; many"
    " are right after all, above all in rare classes, so look before you change one.",
    "unreadable": "Files that are no complete image. Training would stop at them, or leave them out.",
    "blank": "Images in which nearly all pixels are equal. There is nothing to learn from.",
    "dark": "Images far darker than is usual.",
    "bright": "Images far brighter than is usual.",
    "blurred": "Images with hardly any sharp edge.",
    "odd-size": "Images whose size or shape is far from that of the others.",
    "odd-mode": "Images stored otherwise than the others: gray among color, transparent, several frames, turned by a"
    " tag.",
    "outlier": "Images that are unlike all others. They may be in the wrong data set, or just rare.",
    "shortcut": "Something that should not tell the label does, such as the size of the file or the color of the"
    " border. A model may learn that in place of the content.",
    "shift": "The rows to be predicted look different from those to learn from. A score may not carry over.",
}
"""What each kind of finding means."""
