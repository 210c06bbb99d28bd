"""Layouts of tables, and of folders whose labels are in tables."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from tests.suggest.layouts import ABC, Layout, classes, image, images, lines, records, table

N = 24


def kinds(count: int = N, of: int = 3) -> list[int]:
    return [number % of for number in range(count)]


def numbered(count: int = N, suffix: str = ".jpg", front: str = "") -> list[str]:
    return [f"{front}{number:05}{suffix}" for number in range(count)]


def cassava(folder: Path) -> Path:
    names = [f"{n * 977 + 1000}.jpg" for n in range(N)]
    images(folder / "train_images", names)
    images(folder / "test_images", ["2216849948.jpg"])
    table(folder / "train.csv", ["image_id", "label"], list(zip(names, kinds(of=5), strict=True)))
    table(folder / "sample_submission.csv", ["image_id", "label"], [["2216849948.jpg", 4]])
    names_of = {"0": "Cassava Bacterial Blight (CBB)", "1": "CBSD", "2": "CGM", "3": "CMD", "4": "Healthy"}
    (folder / "label_num_to_disease_map.json").write_text(json.dumps(names_of))
    return folder


def plant_pathology_2020(folder: Path) -> Path:
    images(folder / "images", [*(f"Train_{n}.jpg" for n in range(N)), *(f"Test_{n}.jpg" for n in range(6))])
    header = ["healthy", "multiple_diseases", "rust", "scab"]
    rows = [[f"Train_{n}", *(int(k == n % 4) for k in range(4))] for n in range(N)]
    table(folder / "train.csv", ["image_id", *header], rows)
    table(folder / "test.csv", ["image_id"], [[f"Test_{n}"] for n in range(6)])
    table(
        folder / "sample_submission.csv",
        ["image_id", *header],
        [[f"Test_{n}", 0.25, 0.25, 0.25, 0.25] for n in range(6)],
    )
    return folder


def plant_pathology_2021(folder: Path) -> Path:
    names = numbered()
    images(folder / "train_images", names)
    cells = [
        "healthy",
        "scab frog_eye_leaf_spot complex",
        "scab",
        "complex",
        "rust",
        "frog_eye_leaf_spot",
        "rust frog_eye_leaf_spot",
        "scab frog_eye_leaf_spot",
    ]
    table(folder / "train.csv", ["image", "labels"], [[name, cells[n % 8]] for n, name in enumerate(names)])
    return folder


def aptos(folder: Path) -> Path:
    ids = [f"{n * 7919:012x}" for n in range(N)]
    images(folder / "train_images", [f"{id}.png" for id in ids])
    images(folder / "test_images", ["0005cfc8afb6.png"])
    table(folder / "train.csv", ["id_code", "diagnosis"], list(zip(ids, kinds(of=5), strict=True)))
    table(folder / "test.csv", ["id_code"], [["0005cfc8afb6"]])
    table(folder / "sample_submission.csv", ["id_code", "diagnosis"], [["0005cfc8afb6", 0]])
    return folder


HAM = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]


def ham10000(folder: Path) -> Path:
    ids = [f"ISIC_{24306 + n:07}" for n in range(N)]
    images(folder / "HAM10000_images_part_1", [f"{id}.jpg" for id in ids[:12]])
    images(folder / "HAM10000_images_part_2", [f"{id}.jpg" for id in ids[12:]])
    rows = [
        [
            f"HAM_{n // 2:07}",
            id,
            ("nv", "nv", "mel", "mel", "bkl", "bkl")[n % 6],
            "histo",
            50.0 + n % 7 * 5,
            ("male", "female")[n % 2],
            "back",
        ]
        for n, id in enumerate(ids)
    ]
    table(folder / "HAM10000_metadata.csv", HAM, rows)
    table(folder / "hmnist_8_8_L.csv", ["pixel0000", "pixel0001", "label"], [[n, n, n % 3] for n in range(6)])
    return folder


def isic2018(folder: Path) -> Path:
    ids = [f"ISIC_{24306 + n:07}" for n in range(N)]
    header = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    images(folder / "ISIC2018_Task3_Training_Input", [f"{id}.jpg" for id in ids])
    rows = [[id, *(float(k == n % 7) for k in range(7))] for n, id in enumerate(ids)]
    table(
        folder / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv",
        ["image", *header],
        rows,
    )
    return folder / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"


def isic2020(folder: Path) -> Path:
    ids = [f"ISIC_{n:07}" for n in range(40)]
    images(folder / "train", [f"{id}.jpg" for id in ids], (0, 1))
    header = [
        "image_name",
        "patient_id",
        "sex",
        "age_approx",
        "anatom_site_general_challenge",
        "diagnosis",
        "benign_malignant",
        "target",
    ]
    rows = [
        [
            id,
            f"IP_{n // 2}",
            ("male", "female")[n // 2 % 2],
            40 + n % 5 * 5,
            "torso",
            "unknown" if n % 5 else "melanoma",
            "benign" if n % 5 else "malignant",
            int(n % 5 == 0),
        ]
        for n, id in enumerate(ids)
    ]
    return table(folder / "train.csv", header, rows)


def dog_breed(folder: Path) -> Path:
    ids = [f"{n * 7919:032x}" for n in range(N)]
    images(folder / "train", [f"{id}.jpg" for id in ids])
    images(folder / "test", [f"{n * 104729 + 1:032x}.jpg" for n in range(6)])
    table(
        folder / "labels.csv",
        ["id", "breed"],
        [[id, ("boston_bull", "dingo", "pug")[n % 3]] for n, id in enumerate(ids)],
    )
    table(
        folder / "sample_submission.csv",
        ["id", "boston_bull", "dingo", "pug"],
        [[f"{n * 104729 + 1:032x}", *3 * [1 / 3]] for n in range(6)],
    )
    return folder


def cifar10_kaggle(folder: Path) -> Path:
    images(folder / "train", [f"{n}.png" for n in range(1, N + 1)])
    images(folder / "test", [f"{n}.png" for n in range(1, 9)])
    table(
        folder / "trainLabels.csv",
        ["id", "label"],
        [[n, ("frog", "truck", "deer")[n % 3]] for n in range(1, N + 1)],
    )
    table(folder / "sampleSubmission.csv", ["id", "label"], [[n, "cat"] for n in range(1, 9)])
    return folder


def roboflow(folder: Path) -> Path:
    for part, count, first in (("train", 12, 0), ("valid", 6, 20), ("test", 6, 40)):
        names = [f"img_{first + n}_jpg.rf.{n * 7919:08x}.jpg" for n in range(count)]
        images(folder / part, names)
        table(
            folder / part / "_classes.csv",
            ["filename", " ash", " elm", " oak"],
            [[name, *(f" {int(k == n % 3)}" for k in range(3))] for n, name in enumerate(names)],
        )
    lines(folder / "README.roboflow.txt", ["Roboflow export"])
    return folder


def celeba(folder: Path) -> Path:
    names = [f"{n + 1:06}.jpg" for n in range(N)]
    images(folder / "img_align_celeba", names)
    header = "5_o_Clock_Shadow Bald Male Smiling"
    rows = [
        f"{name} {1 if n % 3 == 0 else -1:>2} {1 if n % 5 == 0 else -1:>2} {1 if n % 2 else -1:>2} {1 if n % 4 < 2 else -1:>2}"
        for n, name in enumerate(names)
    ]
    return lines(folder / "list_attr_celeba.txt", [str(N), header, *rows])


def celeba_csv(folder: Path) -> Path:
    names = [f"{n + 1:06}.jpg" for n in range(N)]
    images(folder / "img_align_celeba" / "img_align_celeba", names)
    rows = [
        [name, 1 if n % 3 == 0 else -1, 1 if n % 5 == 0 else -1, 1 if n % 2 else -1]
        for n, name in enumerate(names)
    ]
    table(folder / "list_attr_celeba.csv", ["image_id", "Bald", "Young", "Male"], rows)
    table(
        folder / "list_eval_partition.csv",
        ["image_id", "partition"],
        [[name, n % 6 // 3] for n, name in enumerate(names)],
    )
    return folder / "list_attr_celeba.csv"


def mura(folder: Path) -> Path:
    source = folder / "MURA-v1.1"
    rows = []
    for part, patients in (("train", range(8)), ("valid", range(20, 24))):
        for patient in patients:
            label = ("positive", "negative")[patient % 2]
            for n in range(2):
                path = f"MURA-v1.1/{part}/XR_ELBOW/patient{patient:05}/study1_{label}/image{n + 1}.png"
                image(folder / path, patient % 2, 2 * patient + n)
                rows.append((part, path, patient % 2))
    for part in ("train", "valid"):
        table(
            source / f"{part}_labels.csv",
            ["path", "label"],
            [[path, label] for p, path, label in rows if p == part],
        )
    return source / "train_labels.csv"


def nih_chest(folder: Path) -> Path:
    names = [f"{n:08}_000.png" for n in range(N)]
    images(folder / "images_001" / "images", names[:12])
    images(folder / "images_002" / "images", names[12:])
    cells = ["No Finding", "Cardiomegaly", "Effusion|Cardiomegaly", "Effusion", "Hernia|Effusion", "Hernia"]
    header = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
    rows = [[name, cells[n % 6], n % 2, n // 2, 40 + n, "MF"[n % 2]] for n, name in enumerate(names)]
    return table(folder / "Data_Entry_2017.csv", header, rows)


def chexpert(folder: Path) -> Path:
    rows = []
    for n in range(N):
        path = f"CheXpert-v1.0-small/train/patient{n // 2:05}/study1/view{n % 2 + 1}_frontal.jpg"
        image(folder / path, n % 3, n)
        rows.append(
            [
                path,
                "Female",
                60,
                "Frontal",
                "AP",
                *(("1.0", "", "0.0", "-1.0")[(n + k) % 4] for k in range(3)),
            ]
        )
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "Cardiomegaly", "Edema", "Fracture"]
    return table(folder / "CheXpert-v1.0-small" / "train.csv", header, rows)


def pets_list(folder: Path) -> Path:
    names = [f"{name}_{n}" for n in range(8) for name in ("Abyssinian", "Bengal", "pug")]
    images(folder / "images", [f"{name}.jpg" for name in names])
    rows = [f"{name} {k % 3 + 1} {1 if k % 3 < 2 else 2} {k % 3 + 1}" for k, name in enumerate(names)]
    lines(
        folder / "annotations" / "list.txt",
        ["#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids", *rows],
    )
    return folder / "annotations" / "list.txt"


def cub(folder: Path) -> Path:
    source = folder / "CUB_200_2011"
    names = [
        f"{k + 1:03}.{('Laysan_Albatross', 'Crow', 'Wren')[k]}/{n}.jpg" for k in range(3) for n in range(8)
    ]
    images(source / "images", names)
    lines(source / "images.txt", [f"{n} {name}" for n, name in enumerate(names, start=1)])
    lines(source / "image_class_labels.txt", [f"{n} {(n - 1) // 8 + 1}" for n in range(1, 25)])
    lines(source / "classes.txt", ["1 001.Laysan_Albatross", "2 002.Crow", "3 003.Wren"])
    lines(source / "train_test_split.txt", [f"{n} {int(n % 3 > 0)}" for n in range(1, 25)])
    lines(source / "bounding_boxes.txt", [f"{n} 60.0 27.0 325.0 304.0" for n in range(1, 25)])
    return source


def stanford_cars(folder: Path) -> Path:
    names = numbered()
    images(folder / "cars_train" / "cars_train", names)
    cars = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi S4 Sedan 2012"]
    rows = [[name, 39, 116, 569, 375, cars[n % 3]] for n, name in enumerate(names)]
    return table(folder / "cars_train.csv", ["image", "x1", "y1", "x2", "y2", "Class"], rows)


def gtsrb(folder: Path) -> Path:
    rows, test = [], []
    for k in range(3):
        for n in range(8):
            path = f"Train/{k}/{k:05}_{n:05}.png"
            image(folder / path, k, n)
            rows.append([30, 30, 5, 5, 25, 25, k, path])
    for n in range(9):
        image(folder / f"Test/{n:05}.png", n % 3, 50 + n)
        test.append([30, 30, 5, 5, 25, 25, n % 3, f"Test/{n:05}.png"])
    header = ["Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId", "Path"]
    table(folder / "Train.csv", header, rows)
    table(folder / "Test.csv", header, test)
    table(
        folder / "Meta.csv",
        ["Path", "ClassId", "ShapeId", "ColorId", "SignId"],
        [[f"Meta/{k}.png", k, k, 0, 1.1] for k in range(3)],
    )
    return folder


def planet(folder: Path) -> Path:
    names = [f"train_{n}" for n in range(40)]
    images(folder / "train-jpg", [f"{name}.jpg" for name in names])
    weather = ("clear", "haze", "partly_cloudy")
    others = ("agriculture", "habitation", "road", "water")
    cells = [
        " ".join(sorted(["primary", weather[n % 3], *(o for k, o in enumerate(others) if n // 3 >> k & 1)]))
        for n in range(39)
    ]
    cells.append("cloudy")
    return table(folder / "train_v2.csv", ["image_name", "tags"], list(zip(names, cells, strict=True)))


def imet(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    ids = [f"{n * 7919:016x}" for n in range(60)]
    images(folder / "train", [f"{id}.png" for id in ids])
    rows = [[id, " ".join(map(str, sorted(rng.choice(12, rng.integers(1, 4), replace=False))))] for id in ids]
    table(
        folder / "labels.csv", ["attribute_id", "attribute_name"], [[k, f"culture::{k}"] for k in range(12)]
    )
    table(folder / "train.csv", ["id", "attribute_ids"], rows)
    return folder


def hugging_face_csv(folder: Path) -> Path:
    names = numbered()
    images(folder / "train", names)
    table(
        folder / "train" / "metadata.csv",
        ["file_name", "label"],
        [[name, ABC[n % 3]] for n, name in enumerate(names)],
    )
    return folder


def hugging_face_jsonl(folder: Path) -> Path:
    for part, count, first in (("train", 12, 0), ("validation", 6, 20), ("test", 6, 40)):
        names = [f"{first + n:04}.png" for n in range(count)]
        images(folder / part, names)
        records(
            folder / part / "metadata.jsonl",
            [{"file_name": name, "label": ABC[n % 3]} for n, name in enumerate(names)],
        )
    return folder


def fastai(folder: Path) -> Path:
    names = numbered(30, front="images/")
    images(folder, names)
    cells = ["chair", "car", "horse person", "car person", "person", "chair person"]
    rows = [[name.removeprefix("images/"), cells[n % 6], n % 5 == 0] for n, name in enumerate(names)]
    return table(folder / "train.csv", ["fname", "labels", "is_valid"], rows)


def wilds(folder: Path) -> Path:
    names = numbered(suffix=".jpg", front="img_")
    images(folder, names)
    rows = [
        [n, name, ("Bald_Eagle", "Crow", "Gull")[n % 3], n % 3, n // 6 % 3, n % 2]
        for n, name in enumerate(names)
    ]
    return table(folder / "metadata.csv", ["img_id", "img_filename", "species", "y", "split", "place"], rows)


def iwildcam(folder: Path) -> Path:
    names = [f"{n * 7919:08x}.jpg" for n in range(30)]
    images(folder / "train", names)
    split = ["train", "train", "val", "test", "id_val", "id_test"]
    rows = [[split[n // 5], n // 5, name, ABC[n % 3]] for n, name in enumerate(names)]
    return table(folder / "metadata.csv", ["split", "location_remapped", "filename", "y"], rows)


def fashion_product(folder: Path) -> Path:
    images(folder / "images", [f"{1000 + n}.jpg" for n in range(N)])
    rows = [
        [
            1000 + n,
            ("Men", "Women")[n % 2],
            ("Apparel", "Footwear")[n // 2 % 2],
            ("Topwear", "Shoes")[n // 2 % 2],
            ("Shirts", "Jeans", "Boots")[n % 3],
            f"Brand product {n}",
        ]
        for n in range(N)
    ]
    return table(
        folder / "styles.csv",
        ["id", "gender", "masterCategory", "subCategory", "articleType", "productDisplayName"],
        rows,
    )


def semicolons(folder: Path) -> Path:
    names = numbered()
    images(folder / "bilder", names)
    rows = [
        [name, ("Hund", "Katze", "Maus")[n % 3], f"{n / 7:.3f}".replace(".", ",")]
        for n, name in enumerate(names)
    ]
    return table(folder / "daten.csv", ["datei", "klasse", "gewicht"], rows, ";")


def excel_utf16(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    text = "file\tlabel\r\n" + "".join(f"{name}\t{ABC[n % 3]}\r\n" for n, name in enumerate(names))
    (folder / "labels.csv").write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    return folder / "labels.csv"


def windows_paths(folder: Path) -> Path:
    names = numbered()
    images(folder / "data" / "imgs", names)
    rows = [[f"data\\imgs\\{name}", ABC[n % 3]] for n, name in enumerate(names)]
    return table(folder / "labels.csv", ["filepath", "label"], rows)


def other_machine(folder: Path) -> Path:
    names = numbered()
    images(folder / "data" / "imgs", names)
    rows = [[f"/home/somebody/project/data/imgs/{name}", ABC[n % 3]] for n, name in enumerate(names)]
    return table(folder / "labels.csv", ["path", "label"], rows)


def colab(folder: Path) -> Path:
    names = numbered()
    images(folder / "imgs", names)
    rows = [[f"C:\\Users\\Someone\\Desktop\\imgs\\{name}", ABC[n % 3]] for n, name in enumerate(names)]
    return table(folder / "labels.csv", ["path", "label"], rows)


def table_above(folder: Path) -> Path:
    names = numbered()
    images(folder / "photos", names)
    rows = [[f"../photos/{name}", ABC[n % 3]] for n, name in enumerate(names)]
    return table(folder / "tables" / "labels.csv", ["path", "label"], rows)


def no_header(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    return table(folder / "labels.csv", None, [[name, ABC[n % 3]] for n, name in enumerate(names)])


def imagenet_list(folder: Path) -> Path:
    names = [f"ILSVRC2012_val_{n + 1:08}.JPEG" for n in range(N)]
    images(folder / "val", names)
    return lines(folder / "val.txt", [f"{name} {n % 3}" for n, name in enumerate(names)])


def labels_by_image(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    (folder / "labels.json").write_text(json.dumps({name: ABC[n % 3] for n, name in enumerate(names)}))
    return folder / "labels.json"


def coco(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    annotations = [{"image_id": n // 2, "category_id": n % 3, "bbox": [0, 0, 4, 4]} for n in range(2 * N)]
    value = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": k, "name": ABC[k]} for k in range(3)],
    }
    (folder / "instances.json").write_text(json.dumps(value))
    return folder / "instances.json"


def camera_traps(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    value = {
        "images": [{"id": f"a{n}", "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"image_id": f"a{n}", "category_id": n % 3} for n in range(N)],
        "categories": [{"id": k, "name": ABC[k]} for k in range(3)],
    }
    (folder / "annotations.json").write_text(json.dumps(value))
    return folder / "annotations.json"


def three_tables(folder: Path) -> Path:
    for part, count, first in (("train", 18, 0), ("val", 6, 30), ("test", 6, 60)):
        names = [f"{part}/{first + n}.png" for n in range(count)]
        images(folder, names)
        table(folder / f"{part}.csv", ["path", "label"], [[name, ABC[n % 3]] for n, name in enumerate(names)])
    return folder


def three_tables_own_folders(folder: Path) -> Path:
    for part, count, shift in (("train", 18, 0), ("val", 6, 7), ("test", 6, 11)):
        for n in range(count):
            image(folder / part / f"{n}.png", n % 3, n + shift * 100)
        table(folder / f"{part}.csv", ["file", "label"], [[f"{n}.png", ABC[n % 3]] for n in range(count)])
    return folder


def fold_column(folder: Path) -> Path:
    names = numbered(30)
    images(folder / "train", names)
    rows = [[name, ABC[n % 3], n // 3 % 5] for n, name in enumerate(names)]
    return table(folder / "train_folds.csv", ["image_id", "label", "kfold"], rows)


def repeated_rows(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    rows = [[name, ABC[n % 3]] for n, name in enumerate(names)]
    return table(folder / "labels.csv", ["image", "label"], [*rows, *rows[:5]])


def eyepacs(folder: Path) -> Path:
    ids = [f"{n // 2}_{('left', 'right')[n % 2]}" for n in range(30)]
    images(folder / "train", [f"{id}.jpeg" for id in ids])
    return table(
        folder / "trainLabels.csv",
        ["image", "level"],
        [[id, (0, 0, 1, 2, 3, 4)[n % 6]] for n, id in enumerate(ids)],
    )


def boneage(folder: Path) -> Path:
    images(folder / "boneage-training-dataset", [f"{1377 + n}.png" for n in range(40)])
    rows = [[1377 + n, 60 + (n * 7) % 83, n % 2 == 0] for n in range(40)]
    return table(folder / "boneage-training-dataset.csv", ["id", "boneage", "male"], rows)


def pawpularity(folder: Path) -> Path:
    ids = [f"{n * 7919:032x}" for n in range(40)]
    images(folder / "train", [f"{id}.jpg" for id in ids])
    rows = [[id, n % 2, int(n % 3 == 0), int(n % 5 == 0), 10 + (n * 13) % 71] for n, id in enumerate(ids)]
    table(folder / "sample_submission.csv", ["Id", "Pawpularity"], [["x", 38]])
    return table(folder / "train.csv", ["Id", "Focus", "Eyes", "Group", "Pawpularity"], rows)


def humpback(folder: Path) -> Path:
    names = [f"{n * 7919:08x}.jpg" for n in range(40)]
    images(folder / "train", names)
    rows = [[name, "new_whale" if n % 4 == 0 else f"w_{n // 3:07x}"] for n, name in enumerate(names)]
    return table(folder / "train.csv", ["Image", "Id"], rows)


def landmarks(folder: Path) -> Path:
    ids = [f"{n * 1234567 + 10**15:016x}" for n in range(N)]
    for n, id in enumerate(ids):
        image(folder / "train" / id[0] / id[1] / id[2] / f"{id}.jpg", n % 3, n)
    return table(
        folder / "train.csv", ["id", "landmark_id"], [[id, 100 + n % 3 * 50] for n, id in enumerate(ids)]
    )


def herbarium_parquet(folder: Path) -> Path:
    names = numbered(suffix=".jpg", front="images/000/")
    images(folder, names)
    pl.DataFrame({"file_name": names, "species": [f"Quercus {ABC[n % 3]}" for n in range(N)]}).write_parquet(
        folder / "train.parquet"
    )
    return folder


def derm_unknown(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    rows = [[name, ("1", "2", "3", "-1")[n % 4]] for n, name in enumerate(names)]
    return table(folder / "fitzpatrick.csv", ["file", "label"], rows)


def blanks_and_nan(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    rows = [[name, ("ash", "elm", "nan", "", "oak")[n % 5]] for n, name in enumerate(names)]
    return table(folder / "t.csv", ["file", "label"], rows)


def python_lists(folder: Path) -> Path:
    names = numbered()
    images(folder / "images", names)
    cells = ["['beach', 'sea']", "['sea']", "['beach']", "['beach', 'sky']", "['sky']"]
    return table(folder / "t.csv", ["file", "tags"], [[name, cells[n % 5]] for n, name in enumerate(names)])


def movie_posters(folder: Path) -> Path:
    names = [f"tt{n:07}" for n in range(30)]
    images(folder / "Images", [f"{name}.jpg" for name in names])
    genres = ["Drama", "Comedy, Drama", "Action, Drama", "Comedy", "Action", "Action, Comedy"]
    header = ["Id", "Genre", "Crime", "Western"]
    rows = [[name, genres[n % 6], int(n % 7 == 0), int(n % 11 == 0)] for n, name in enumerate(names)]
    return table(folder / "train.csv", header, rows)


def comma_names(folder: Path) -> Path:
    names = numbered()
    images(folder / "im", names)
    cells = ["Tomato, healthy", "Tomato, late blight", "Potato, healthy"]
    return table(
        folder / "t.csv", ["filename", "label"], [[name, cells[n % 3]] for n, name in enumerate(names)]
    )


def galaxy_zoo(folder: Path) -> Path:
    ids = [100_008 + 7 * n for n in range(N)]
    images(folder / "images_training_rev1", [f"{id}.jpg" for id in ids])
    rng = np.random.default_rng(0)
    rows = [[id, *rng.dirichlet((1, 1, 1)).round(6)] for id in ids]
    return table(
        folder / "training_solutions_rev1.csv", ["GalaxyID", "Class1.1", "Class1.2", "Class1.3"], rows
    )


def many_species(folder: Path) -> Path:
    names = numbered(600)
    images(folder / "im", names)
    return table(
        folder / "train.csv",
        ["image", "scientific_name"],
        [[name, f"Genus species{n % 290}"] for n, name in enumerate(names)],
    )


def facial_expressions(folder: Path) -> Path:
    names = numbered(20)
    images(folder / "images", names)
    rows = [
        [f"user{n % 3}", name, ("happiness", "neutral", "anger", "neutral")[n % 4]]
        for n, name in enumerate(names)
    ]
    return table(folder / "legend.csv", ["user.id", "image", "emotion"], rows)


def paddy(folder: Path) -> Path:
    labels = ("blast", "hispa", "normal", "tungro", "bacterial_leaf_blight")
    rows = []
    for n in range(40):
        image(folder / "train_images" / labels[n % 5] / f"{100_330 + n}.jpg", n % 3, n)
        rows.append([f"{100_330 + n}.jpg", labels[n % 5], ("ADT45", "Ponni")[n // 5 % 2], 45 + n % 7])
    images(folder / "test_images", [f"{200_001 + n}.jpg" for n in range(5)])
    table(folder / "train.csv", ["image_id", "label", "variety", "age"], rows)
    table(
        folder / "sample_submission.csv",
        ["image_id", "label"],
        [[f"{200_001 + n}.jpg", ""] for n in range(5)],
    )
    return folder


def folders_and_training_table(folder: Path) -> Path:
    rows = []
    for part, count, first in (("train", 8, 0), ("val", 4, 20)):
        classes(folder / part, dict.fromkeys(ABC, count), ".jpg", first)
        rows += [
            [f"{part}/{label}/{first + n}.jpg", label]
            for label in ABC
            for n in range(count)
            if part == "train"
        ]
    return table(folder / "train.csv", ["path", "label"], rows).parent


def missing_files(folder: Path) -> Path:
    images(folder / "images", numbered(20))
    return table(
        folder / "train.csv", ["image", "label"], [[name, ABC[n % 3]] for n, name in enumerate(numbered(24))]
    )


def no_images(folder: Path) -> Path:
    return table(
        folder / "train.csv", ["image", "label"], [[name, ABC[n % 3]] for n, name in enumerate(numbered(24))]
    )


def pixels_in_table(folder: Path) -> Path:
    rows = [[n % 7, " ".join(["70"] * 48), "Training"] for n in range(N)]
    return table(folder / "fer2013.csv", ["emotion", "pixels", "Usage"], rows)


def free_text(folder: Path) -> Path:
    names = numbered()
    images(folder / "Images", names)
    return table(
        folder / "captions.csv",
        ["image", "caption"],
        [[name, f"a dog, number {n}, on grass"] for n, name in enumerate(names)],
    )


C3 = {"label": ("class", 3)}
TABLES = [
    Layout("train.csv with numbers, names of them in JSON", "Cassava Leaf Disease", cassava, {"label": ("class", 5)}, {"all": 24}, {"path": "image_id"}, ["0 = Cassava Bacterial Blight (CBB)", "5 classes with numbers as names"]),
    Layout("one column a class, ids without suffix", "Plant Pathology 2020", plant_pathology_2020, {"label": ("class", 4)}, {"all": 24}, says=["exactly one of these columns is yes", "by the name without its suffix", "not used: test.csv"]),
    Layout("several labels, spaces between them", "Plant Pathology 2021", plant_pathology_2021, {"labels": ("multilabel", 5)}, {"all": 24}, says=["separated by spaces"]),
    Layout("grades, ids without suffix", "APTOS 2019", aptos, {"diagnosis": ("class", 5)}, {"all": 24}, says=["5 classes with numbers as names"]),
    Layout("metadata, images in two folders", "HAM10000", ham10000, {"dx": ("class", 3)}, {"all": 24}, {"group": "lesion_id"}),
    Layout("one column a class in 0.0 and 1.0", "ISIC 2018", isic2018, {"label": ("class", 7)}, {"all": 24}),
    Layout("target of 0 and 1, patients", "ISIC 2020", isic2020, {"target": ("class", 2)}, {"all": 40}, {"group": "patient_id"}, ["not used: sex"]),
    Layout("labels.csv and train, test without classes", "Dog Breed Identification", dog_breed, {"breed": ("class", 3)}, {"all": 24}),
    Layout("numbers as ids, the same in train and test", "CIFAR-10 on Kaggle", cifar10_kaggle, C3, {"all": 24}),
    Layout("_classes.csv in each part", "Roboflow, multi-class", roboflow, C3, {"train": 12, "valid": 6}, says=["exactly one of these columns is yes", "test: 6 rows kept out"]),
    Layout("a list of attributes of -1 and 1", "CelebA", celeba, {"label": ("multilabel", 4)}, {"all": 24}, says=["it is a list with spaces between the cells"]),
    Layout("attributes of -1 and 1 as CSV, a table of partitions", "CelebA on Kaggle", celeba_csv, {"label": ("multilabel", 3)}, {"train": 12, "valid": 12}, says=["joined by 'image_id'"]),
    Layout("a table for each part, paths from above", "MURA", mura, {"label": ("class", 2)}, {"train": 16, "valid": 8}),
    Layout("several findings, bars between them", "NIH ChestX-ray14", nih_chest, {"Finding Labels": ("multilabel", 4)}, {"all": 24}, {"group": "Patient ID"}, ["'No Finding' (4 rows)"]),
    Layout("findings of 1, 0, -1 and blank", "CheXpert", chexpert, {"label": ("multilabel", 3)}, says=["'-1.0'"]),
    Layout("a list of numbers with comments", "Oxford-IIIT Pets", pets_list, {"label_1": ("class", 3), "label_2": ("class", 2), "label_3": ("class", 3)}, {"all": 24}),
    Layout("lists joined by number", "CUB-200-2011", cub, C3, says=["joined by the number of the image", "test: 8 rows kept out"]),
    Layout("boxes and a class that is a phrase", "Stanford Cars on Kaggle", stanford_cars, {"Class": ("class", 3)}, {"all": 24}),
    Layout("Train.csv, Test.csv, Meta.csv and class folders", "GTSRB", gtsrb, {"ClassId": ("class", 3)}, {"all": 24}, says=["the 9 rows of Test.csv kept out"]),
    Layout("sorted tags, spaces between them", "Planet: Understanding the Amazon", planet, {"tags": ("multilabel", 9)}, {"all": 40}),
    Layout("numbers of attributes, spaces between them", "iMet 2019", imet, {"attribute_ids": ("multilabel", 12)}, {"all": 60}),
    Layout("metadata.csv in train", "Hugging Face imagefolder", hugging_face_csv, C3, {"all": 24}),
    Layout("metadata.jsonl in each part", "Hugging Face imagefolder", hugging_face_jsonl, C3, {"train": 12, "valid": 6}, says=["test: 6 rows kept out"]),
    Layout("is_valid, several labels", "fastai's DataBlock tables", fastai, {"labels": ("multilabel", 4)}, {"train": 24, "valid": 6}),
    Layout("parts as numbers 0, 1, 2", "WILDS: Waterbirds", wilds, {"y": ("class", 3)}, {"train": 12, "valid": 6}, says=["test: 6 rows kept out"]),
    Layout("train, val, test, id_val, id_test", "WILDS: iWildCam", iwildcam, {"y": ("class", 3)}, {"train": 10, "valid": 5}, says=["10 skip"]),
    Layout("several columns to learn", "Fashion Product Images", fashion_product, {"gender": ("class", 2), "masterCategory": ("class", 2), "subCategory": ("class", 2), "articleType": ("class", 3)}, {"all": 24}),
    Layout("semicolons, decimal commas, German names", "a spreadsheet", semicolons, {"klasse": ("class", 3)}, {"all": 24}, {"path": "datei"}),
    Layout("UTF-16 with tabs", "Excel's Unicode text", excel_utf16, C3, {"all": 24}),
    Layout("backslashes", "tables made on Windows", windows_paths, C3, {"all": 24}),
    Layout("absolute paths of another machine", "tables made by a script", other_machine, C3, {"all": 24}, says=["paths begin with '/home/somebody/project"]),
    Layout("absolute paths of Windows", "tables made by a script", colab, C3, {"all": 24}, says=["paths begin with 'C:/Users/Someone/Desktop"]),
    Layout("paths with ..", "tables in a folder of their own", table_above, C3, {"all": 24}),
    Layout("no header", "tables made by hand", no_header, C3, {"all": 24}, says=["it has no header"]),
    Layout("a list of paths and numbers", "ImageNet val.txt, Caffe", imagenet_list, C3, {"all": 24}),
    Layout("labels by image in JSON", "labelling tools", labels_by_image, C3, {"all": 24}),
    Layout("boxes in JSON", "COCO", coco, refusal="detection data set"),
    Layout("one category an image in JSON", "iWildCam, Snapshot Serengeti", camera_traps, C3, {"all": 24}),
    Layout("a table for each part", "many papers", three_tables, C3, {"train": 18, "valid": 6}, says=["the 6 rows of test.csv kept out"]),
    Layout("a table for each part, numbers from 0 in each", "many papers", three_tables_own_folders, C3, {"train": 18, "valid": 6}),
    Layout("a column of folds", "Kaggle notebooks", fold_column, C3, {"train": 24, "valid": 6}, {"fold": "kfold"}),
    Layout("rows repeated exactly", "tables joined by accident", repeated_rows, C3, {"all": 24}, says=["left out 5 rows that repeat another one"]),
    Layout("left and right eyes", "EyePACS", eyepacs, {"level": ("class", 5)}, {"all": 30}),
    Layout("a number, and a column of True and False", "RSNA Bone Age", boneage, {"boneage": ("regression", 0)}, {"all": 40}),
    Layout("a score beside columns of 0 and 1", "PetFinder Pawpularity", pawpularity, {"Pawpularity": ("regression", 0)}, {"all": 40}),
    Layout("individuals, some with one image", "Humpback Whale", humpback, {"Id": ("class", 15)}, {"all": 40}),
    Layout("ids in folders of their first letters", "Google Landmarks", landmarks, {"landmark_id": ("class", 3)}, {"all": 24}, says=["in a deeper folder"]),
    Layout("a parquet table", "herbaria", herbarium_parquet, {"species": ("class", 3)}, {"all": 24}),
    Layout("-1 among numbers from 1", "Fitzpatrick17k", derm_unknown, C3, {"all": 18}, {"unlabeled": "skip"}, ["'-1' (6 rows) taken for unknown"]),
    Layout("blank and nan", "exports of pandas", blanks_and_nan, C3, {"all": 14}, {"unlabeled": "skip"}, ["'nan' (5 rows) taken for unknown"]),
    Layout("lists as Python prints them", "exports of pandas", python_lists, {"tags": ("multilabel", 3)}, {"all": 24}),
    Layout("genres, commas between them, beside flags", "Movie posters", movie_posters, {"Genre": ("multilabel", 3)}, {"all": 30}),
    Layout("names with commas", "PlantVillage's names", comma_names, C3, {"all": 24}, says=["does not recur in other combinations"]),
    Layout("shares of votes", "Galaxy Zoo", galaxy_zoo, dict.fromkeys(("Class1_1", "Class1_2", "Class1_3"), ("regression", 0)), {"all": 24}),
    Layout("hundreds of species", "PlantCLEF", many_species, {"scientific_name": ("class", 290)}, {"all": 600}),
    Layout("users who named expressions", "Facial Expressions on GitHub", facial_expressions, {"emotion": ("class", 3)}, {"all": 20}),
    Layout("a table, and images in class folders", "Paddy Doctor", paddy, {"label": ("class", 5)}, {"all": 40}, says=["in a deeper folder"]),
    Layout("a table of the training images beside train and val", "copies with a table", folders_and_training_table, C3, {"train": 24, "valid": 12}, says=["not used: train.csv"]),
    Layout("some images missing", "partial downloads", missing_files, C3, {"all": 20}, {"bad_images": "skip"}, ["warning: 4 of 24 rows name images that are not there"]),
    Layout("no images", "a table alone", no_images, refusal="has names of images, but there are no such files"),
    Layout("pixels in cells", "FER-2013", pixels_in_table, refusal="no column holds paths of files"),
    Layout("captions", "Flickr8k", free_text, refusal="every value occurs once"),
]  # fmt: skip
