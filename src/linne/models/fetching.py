"""Published weights as a file on this machine: from the cache of whoever published them, or fetched when asked for.

What comes is a file of tensors by its name; reading it without running code from it is up to the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from linne.download import MAX_BYTES, fetch, is_offline
from linne.errors import LinneError, SourceError
from linne.models.provider import HubFile, Pretrained, WebFile
from linne.models.shards import INDEX, read_index
from linne.transfer import Progress

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
"""Of the files that can be read as tensors alone."""

Say = Callable[[str], None]


def find_pretrained(weights: Pretrained) -> Path | None:
    """Return the file, or folder, of `weights` where it is on this machine already, or None. Opens no connection."""
    if isinstance(weights.where, Path):
        return weights.where if any(path.name.endswith(ENDINGS) for path in weights.where.glob("*.*")) else None
    if isinstance(weights.where, WebFile):
        path = _torch_hub_file(weights.where)
        return path if path.exists() else None
    return find_on_hub(weights.where)


def fetch_pretrained(weights: Pretrained, say: Say, *, progress: Progress = lambda done, total: None) -> Path:
    """Return the file of `weights`, from its provider's own cache, or else fetched into that. Call it when asked to.

    Hugging Face's client goes by its own variables as well: `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`.

    Args:
        say: Told where the file is, or what is about to be fetched, from where, its size and its licence.
        progress: Told how far it is, for files that are not on the hub.

    Raises:
        LinneError: it cannot be had; says what to do by hand.
    """
    where, here = weights.where, find_pretrained(weights)
    if here is not None:
        say(f"weights `{weights.full_name}` are here: {here}")
    if isinstance(where, WebFile):
        return _fetch_from_web(weights, where, here is not None, say, progress)
    if here is not None:
        return here
    if isinstance(where, Path):
        raise SourceError(
            f"no weights in `{where}`: expected a file that ends in {', '.join(ENDINGS)}",
            hint="give a file of weights: `--weights FILE`",
        )
    return fetch_from_hub(where, _errand(weights), weights.licence, say)


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be had, and how without this program."""

    what: str
    """"weights `timm/resnet18.a1_in1k`"."""
    by_hand: str
    """A hint."""

    def failed(self, reason: str) -> SourceError:
        """Return the error that says why it cannot be had."""
        return SourceError(f"{self.what} cannot be fetched: {reason}", hint=self.by_hand)

    def begun(self, where: str, size_bytes: int | None, licence: str | None) -> str:
        """Return what to say before it is fetched."""
        size = "size not stated" if size_bytes is None else f"{size_bytes / 1e6:,.1f} MB"
        return f"fetching {self.what}: {where}, {size}, licence {licence or 'not stated'}"


def _errand(weights: Pretrained) -> Errand:
    where = weights.where
    file = f"`{where.filenames[0]}` of `{where.repository}`" if isinstance(where, HubFile) else str(where)
    by_hand = f"fetch {file} on a machine that can, bring it here and type `--weights FILE`"
    return Errand(f"weights `{weights.full_name}`", by_hand)


# torch hub's folder


def _fetch_from_web(weights: Pretrained, where: WebFile, is_here: bool, say: Say, progress: Progress) -> Path:
    """Return the file, its hash compared; torchvision itself believes a file that is there."""
    errand, path = _errand(weights), _torch_hub_file(where)
    if not path.name.endswith(ENDINGS):
        raise errand.failed(f"expected a file that ends in {', '.join(ENDINGS)}")
    if not is_here:
        if is_offline():
            raise errand.failed("linne is offline (`LINNE_OFFLINE`)")
        say(errand.begun(str(where), weights.size_bytes, weights.licence))
    # The size is stated to a kilobyte; what is far longer is not that file.
    most = MAX_BYTES if weights.size_bytes is None else weights.size_bytes + 2**20
    try:
        return fetch([where.url], path, sha256_prefix=weights.sha256_prefix, progress=progress, max_bytes=most)
    except LinneError as error:
        if is_here:
            raise
        raise errand.failed(error.message) from error


def _torch_hub_file(where: WebFile) -> Path:
    """Return where torchvision and timm keep such a file: below `TORCH_HOME`, or the user's cache folder."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints" / where.filename


# The Hugging Face hub


def find_on_hub(where: HubFile) -> Path | None:
    """Return the first of the files that is in the cache of Hugging Face's client, or None.

    An index counts where the files that it names are there as well.
    """
    from huggingface_hub import try_to_load_from_cache

    for filename in where.filenames:
        found = try_to_load_from_cache(where.repository, filename, revision=where.revision)
        if isinstance(found, str) and all((Path(found).parent / name).is_file() for name in _shards(Path(found))):
            return Path(found)
    return None


def _shards(found: Path) -> list[str]:
    """Return the names of the files that `found` is the index of; none where it is no index."""
    return sorted(set(read_index(found).values())) if found.name.endswith(INDEX) else []


def fetch_description(name: str, say: Say) -> None:
    """Have what is needed to understand the name of a network, fetched from the hub. Call it when asked to.

    For `hf:OWNER/NAME` these are two small files, kept in the client's cache; for every other name nothing.

    Raises:
        SourceError: they cannot be had.
    """
    from linne.models.from_huggingface import CONFIG, is_on_hub

    prefix, _, repository = name.partition(":")
    if prefix != "hf" or not is_on_hub(repository):
        return
    if find_on_hub(HubFile(repository=repository, filenames=(CONFIG,))) is not None:
        return
    errand = Errand(f"`{name}`", f"fetch the files of `{repository}` on a machine that can, and type `hf:FOLDER`")
    # How pixels are prepared first: it may be missing, and the other one marks that both were asked for.
    _first_on_hub(HubFile(repository=repository, filenames=("preprocessor_config.json",)), errand, None, say)
    fetch_from_hub(HubFile(repository=repository, filenames=(CONFIG,)), errand, None, say)


def fetch_from_hub(where: HubFile, errand: Errand, licence: str | None, say: Say) -> Path:
    """Return the first of the files that the hub has, fetched into its client's cache; with an index what it names.

    Raises:
        SourceError: it cannot be had, or linne or the client is told to stay offline.
    """
    found = _first_on_hub(where, errand, licence, say)
    if found is None:
        names = " nor ".join(f"`{filename}`" for filename in where.filenames)
        raise errand.failed(f"`{where.repository}` on the Hugging Face hub has no {names}")
    for name in _shards(found):
        shard = HubFile(repository=where.repository, filenames=(name,), revision=where.revision)
        if find_on_hub(shard) is None:
            fetch_from_hub(shard, errand, licence, say)
    return found


def _first_on_hub(where: HubFile, errand: Errand, licence: str | None, say: Say) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    if is_offline():
        raise errand.failed("linne is offline (`LINNE_OFFLINE`)")
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise errand.failed("Hugging Face's client is offline (`HF_HUB_OFFLINE`)")
    for filename in where.filenames:
        url = huggingface_hub.hf_hub_url(where.repository, filename, revision=where.revision)
        try:
            size_bytes = huggingface_hub.get_hf_file_metadata(url).size
            place = f"{where.repository}/{filename} on the Hugging Face hub"
            say(errand.begun(place, size_bytes, licence))
            return Path(huggingface_hub.hf_hub_download(where.repository, filename, revision=where.revision))
        except EntryNotFoundError:
            continue
        except Exception as error:  # of several libraries, and of others in other versions
            raise errand.failed(_why_hub_refused(where, error)) from error
    return None


def _why_hub_refused(where: HubFile, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"`{where.repository}` is for those who accepted its terms on its page and typed `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hugging Face hub has no `{where.repository}`, or does not show it to you"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"`{where.repository}` has no revision `{where.revision}`"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"the Hugging Face hub does not give it: {reason}"
