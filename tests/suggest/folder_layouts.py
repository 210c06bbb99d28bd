"""Layouts of folders."""

from pathlib import Path

import numpy as np

from tests.suggest.layouts import ABC, Layout, classes, image, images, lines, table

THREE = dict.fromkeys(ABC, 10)


def image_folder(folder: Path) -> Path:
    return classes(folder / "flower_photos", {"daisy": 8, "roses": 9, "tulips": 7}, ".jpg")


def imagenette(folder: Path) -> Path:
    source = folder / "imagenette2-160"
    for part, count, first in (("train", 8, 0), ("val", 4, 50)):
        classes(source / part, dict.fromkeys(("n01440764", "n02102040", "n02979186"), count), ".JPEG", first)
    rows = [
        [f"{part}/{label}/{n}.JPEG", label, label]
        for part, label, n in (("train", "n01440764", 0), ("val", "n02102040", 50))
    ]
    table(source / "noisy_imagenette.csv", ["path", "noisy_labels_0", "noisy_labels_1"], rows)
    return source


def imagenet(folder: Path) -> Path:
    source = imagenette(folder)
    (source / "noisy_imagenette.csv").unlink()
    lines(
        source / "LOC_synset_mapping.txt",
        ["n01440764 tench, Tinca tinca", "n02102040 English springer", "n02979186 cassette player"],
    )
    return source


def with_test(folder: Path) -> Path:
    for part, count, first in (("train", 10, 0), ("valid", 4, 20), ("test", 5, 40)):
        classes(folder / part, dict.fromkeys(ABC, count), ".jpg", first)
    return folder


def sports(folder: Path) -> Path:
    with_test(folder)
    rows = [
        [k, f"{part}/{label}/{n}.jpg", label, part]
        for part, n in (("train", 0), ("valid", 20), ("test", 40))
        for k, label in enumerate(ABC)
    ]
    table(folder / "sports.csv", ["class id", "filepaths", "labels", "data set"], rows)
    return folder


def intel(folder: Path) -> Path:
    classes(folder / "seg_train" / "seg_train", {"buildings": 8, "forest": 8, "sea": 8}, ".jpg")
    classes(folder / "seg_test" / "seg_test", {"buildings": 3, "forest": 3, "sea": 3}, ".jpg", 30)
    images(folder / "seg_pred" / "seg_pred", [f"{n}.jpg" for n in range(60, 66)])
    return folder


def chest_xray(folder: Path) -> Path:
    source = folder / "chest_xray"
    classes(source / "train", {"NORMAL": 8, "PNEUMONIA": 16}, ".jpeg")
    classes(source / "test", {"NORMAL": 4, "PNEUMONIA": 6}, ".jpeg", 30)
    classes(source / "val", {"NORMAL": 3, "PNEUMONIA": 3}, ".jpeg", 60)
    return folder


def unlabeled_test(folder: Path) -> Path:
    classes(folder / "training_set", {"cats": 8, "dogs": 8}, ".jpg")
    images(folder / "test" / "unknown", [f"{n}.jpg" for n in range(50, 56)])
    return folder


def stl10(folder: Path) -> Path:
    classes(folder / "train_images", {"bird": 6, "car": 6})
    classes(folder / "test_images", {"bird": 3, "car": 3}, first=20)
    images(folder / "unlabeled_images", [f"{n}.png" for n in range(60, 70)])
    return folder


def eurosat(folder: Path) -> Path:
    return classes(folder / "2750", {"AnnualCrop": 8, "Forest": 8, "SeaLake": 8}, ".jpg").parent


def cat_dog_petimages(folder: Path) -> Path:
    classes(folder / "PetImages", {"Cat": 8, "Dog": 8}, ".jpg")
    lines(folder / "readme[1].txt", ["Kaggle Cats and Dogs", "readme"])
    return folder


def dogs_vs_cats(folder: Path) -> Path:
    images(folder / "train", [f"{name}.{n}.jpg" for n in range(10) for name in ("cat", "dog")], (0, 1))
    images(folder / "test1", [f"{n}.jpg" for n in range(1, 8)])
    table(folder / "sampleSubmission.csv", ["id", "label"], [[n, 0] for n in range(1, 8)])
    return folder


def oxford_pets_flat(folder: Path) -> Path:
    images(
        folder / "images",
        [f"{name}_{n}.jpg" for n in range(8) for name in ("Abyssinian", "great_pyrenees", "Bengal")],
    )
    return folder / "images"


def camera_roll(folder: Path) -> Path:
    images(folder / "DCIM", [f"{name}_{n:04}.JPG" for n in range(8) for name in ("IMG", "DSC")])
    return folder / "DCIM"


def utkface(folder: Path) -> Path:
    images(folder, [f"{20 + n}_{n % 2}_{n % 3}_2017010{n % 9}.jpg" for n in range(20)])
    return folder


def office_home(folder: Path) -> Path:
    for domain in ("Art", "Clipart", "Product"):
        classes(
            folder / domain,
            dict.fromkeys(("Alarm_Clock", "Backpack", "Bed", "Bike", "Chair"), 3),
            ".jpg",
            len(domain) * 10,
        )
    return folder


def kfold_folders(folder: Path) -> Path:
    for number in range(1, 4):
        classes(folder / f"fold{number}", dict.fromkeys(ABC, 4), first=number * 20)
    return folder


def class_then_part(folder: Path) -> Path:
    for kind, label in enumerate(ABC):
        for part, count, first in (("train", 6, 0), ("test", 3, 20)):
            images(folder / label / part, [f"{first + n}.png" for n in range(count)], (kind,))
    return folder


def mvtec(folder: Path) -> Path:
    images(folder / "bottle/train/good", [f"{n:03}.png" for n in range(8)])
    for name in ("good", "broken_large", "contamination"):
        images(folder / "bottle/test" / name, [f"{n:03}.png" for n in range(20, 24)])
    return folder / "bottle"


def breakhis(folder: Path) -> Path:
    for kind, label in enumerate(("benign", "malignant")):
        for zoom in ("40X", "100X"):
            for patient in ("p1", "p2", "p3"):
                images(
                    folder / label / zoom / patient,
                    [f"SOB_{label[0]}_{zoom}_{patient}_{n}.png" for n in range(3)],
                    (kind,),
                )
    return folder


def class_named_train(folder: Path) -> Path:
    return classes(folder, {"bus": 8, "car": 8, "train": 8})


def food101(folder: Path) -> Path:
    source = classes(folder / "food-101" / "images", {"apple_pie": 8, "ramen": 8, "sushi": 8}, ".jpg").parent
    for part, numbers in (("train", range(6)), ("test", range(6, 8))):
        lines(
            source / "meta" / f"{part}.txt",
            [f"{label}/{n}" for label in ("apple_pie", "ramen", "sushi") for n in numbers],
        )
    lines(source / "meta" / "classes.txt", ["apple_pie", "ramen", "sushi"])
    return source


def linked_classes(folder: Path) -> Path:
    classes(folder / "store", THREE)
    (folder / "data").mkdir()
    for label in ABC:
        (folder / "data" / label).symlink_to(folder / "store" / label)
    return folder / "data"


def inaturalist(folder: Path) -> Path:
    counts = {f"{n:05}_Animalia_Chordata_Aves_genus_{n}": 2 + (n % 7 == 0) * 3 for n in range(250)}
    return classes(folder / "train_val_images", counts, ".jpg")


def caltech(folder: Path) -> Path:
    return classes(
        folder / "256_ObjectCategories", {"001.ak47": 6, "002.american-flag": 6, "257.clutter": 6}, ".jpg"
    )


def with_loose_files(folder: Path) -> Path:
    classes(folder, THREE)
    image(folder / "overview.png")
    (folder / "ash" / "Thumbs.db").write_bytes(b"junk")
    (folder / "__MACOSX").mkdir()
    image(folder / "__MACOSX" / "x.png")
    return folder


def classes_txt(folder: Path) -> Path:
    classes(folder, {"0": 8, "1": 8, "2": 8})
    lines(folder / "classes.txt", list(ABC))
    return folder


def flat_train_test(folder: Path) -> Path:
    images(folder / "train", [f"{n}.jpg" for n in range(8)])
    images(folder / "test", [f"{n}.jpg" for n in range(20, 24)])
    return folder


def yolo(folder: Path) -> Path:
    for part in ("train", "val"):
        images(folder / "images" / part, [f"{part}{n}.jpg" for n in range(5)])
        for n in range(5):
            lines(folder / "labels" / part / f"{part}{n}.txt", ["0 0.5 0.5 0.2 0.2"])
    return folder


def voc(folder: Path) -> Path:
    images(folder / "JPEGImages", [f"{n:06}.jpg" for n in range(6)])
    for n in range(6):
        lines(
            folder / "Annotations" / f"{n:06}.xml",
            ["<annotation><object><bndbox></bndbox></object></annotation>"],
        )
    return folder


def masks(folder: Path) -> Path:
    for name in ("images", "masks"):
        images(folder / name, [f"{n}.png" for n in range(8)])
    return folder


def cifar_pickles(folder: Path) -> Path:
    for n in range(1, 4):
        (folder / f"data_batch_{n}").write_bytes(b"\x80\x04")
    np.savez(folder / "cifar.npz", x=np.zeros(3))
    return folder


def one_class(folder: Path) -> Path:
    return classes(folder / "photos", {"cats": 6}).parent


def grades(folder: Path) -> Path:
    return classes(folder, {"Mild": 6, "Moderate": 6, "No_DR": 6, "Proliferate_DR": 6, "Severe": 6})


CLASS3 = {"label": ("class", 3)}
FOLDERS = [
    Layout("class folders", "torchvision ImageFolder, TensorFlow flower_photos", image_folder, CLASS3, {"all": 24}),
    Layout("train and val with class folders, and a table of noisy labels", "Imagenette", imagenette, CLASS3, {"train": 24, "valid": 12}, says=["not used: noisy_imagenette.csv"]),
    Layout("train and val with class folders, and names of the classes", "ImageNet on Kaggle", imagenet, CLASS3, {"train": 24, "valid": 12}, says=["n01440764 = tench, Tinca tinca"]),
    Layout("train, valid, test with class folders", "Roboflow, many on Kaggle", with_test, CLASS3, {"train": 30, "valid": 12}, says=["test: 15 rows kept out"]),
    Layout("train, valid, test and a table of the same", "100 Sports on Kaggle", sports, CLASS3, {"train": 30, "valid": 12}, says=["not used: sports.csv"]),
    Layout("seg_train/seg_train and images to predict", "Intel Image Classification", intel, CLASS3, {"train": 19, "valid": 5}, says=["left out 6 images of seg_pred/", "test: 9 rows kept out"]),
    Layout("one folder around train, test, val", "Chest X-Ray (Pneumonia)", chest_xray, {"label": ("class", 2)}, {"train": 24, "valid": 6}, says=["all images lie in chest_xray/"]),
    Layout("training_set with classes, test/unknown without", "Keras and Udacity examples", unlabeled_test, {"label": ("class", 2)}, says=["left out 6 images of test/"]),
    Layout("train, test and unlabeled images", "STL-10", stl10, {"label": ("class", 2)}, says=["left out 10 images of unlabeled_images/", "test: 6 rows kept out"]),
    Layout("class folders in a folder", "EuroSAT", eurosat, CLASS3, {"all": 24}, says=["all images lie in 2750/"]),
    Layout("class folders and a readme", "Microsoft Cats and Dogs", cat_dog_petimages, {"label": ("class", 2)}, {"all": 16}),
    Layout("classes in the names of files, with a test", "Dogs vs. Cats", dogs_vs_cats, {"label": ("class", 2)}, {"all": 20}, says=["2 classes (cat, dog) from the names of the files", "left out 7 images of test1/"]),
    Layout("classes in the names of files", "Oxford-IIIT Pets, images alone", oxford_pets_flat, CLASS3, {"all": 24}, says=["3 classes (Abyssinian, Bengal, great_pyrenees)"]),
    Layout("a camera's files", "any phone", camera_roll, refusal="16 images directly in it"),
    Layout("age, gender and origin in the names of files", "UTKFace", utkface, refusal="20 images directly in it"),
    Layout("domains with the same class folders", "Office-Home, PACS, DomainNet", office_home, {"label": ("class", 5)}, {"all": 45}, says=["the inner folders"]),
    Layout("folds with the same class folders", "cross-validation by folders", kfold_folders, CLASS3, {"train": 24, "valid": 12}, {"fold": "fold"}),
    Layout("class folders with train and test in each", "Stanford Online Products style", class_then_part, CLASS3, says=["test: 9 rows kept out"]),
    Layout("only good images for training", "MVTec AD", mvtec, refusal="found only one class folder, 'good', in the folders for training"),
    Layout("class, magnification and patient", "BreakHis", breakhis, {"label": ("class", 2)}, {"all": 36}),
    Layout("a class called train", "vehicles", class_named_train, CLASS3, {"all": 24}),
    Layout("images and lists of the parts", "Food-101", food101, CLASS3, {"train": 15, "valid": 3}, says=["the lists meta/test.txt, meta/train.txt name them", "test: 6 rows kept out"]),
    Layout("class folders that are links", "DVC, git-annex", linked_classes, CLASS3, {"all": 30}, {"follow_links": True}),
    Layout("hundreds of class folders", "iNaturalist", inaturalist, {"label": ("class", 250)}, {"all": 608}),
    Layout("numbered class folders", "Caltech-256", caltech, CLASS3, {"all": 18}),
    Layout("class folders and what systems leave", "anything zipped on a Mac", with_loose_files, CLASS3, {"all": 30}, says=["1 images of __MACOSX/", "1 images that are in no class folder"]),
    Layout("numbered class folders and classes.txt", "exports of labelling tools", classes_txt, CLASS3, {"all": 24}, says=["0 = ash, 1 = elm, 2 = oak"]),
    Layout("train and test without classes", "generative data sets", flat_train_test, refusal="parts of a split, but no folders of classes"),
    Layout("boxes in text files", "YOLO detection", yolo, refusal="boxes"),
    Layout("boxes in XML", "Pascal VOC", voc, refusal="boxes"),
    Layout("images and masks", "Carvana, Kvasir-SEG", masks, refusal="outlines"),
    Layout("pickled arrays", "CIFAR-10 for Python", cifar_pickles, refusal="arrays (.npz)"),
    Layout("one class", "a single folder", one_class, refusal="only one class folder with images, 'cats'"),
    Layout("folders of ordered grades", "APTOS resized, by folder", grades, {"label": ("ordinal", 5)}, {"all": 30}, says=["ordered levels"]),
]  # fmt: skip
