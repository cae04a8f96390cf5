"""What to cite: BibTeX of the paper, of each method, and of this package."""

from collections.abc import Iterable

from ..methods import METHODS

PAPER = """\
@article{alssum2025unforgotten,
  title   = {Unforgotten Safety: Preserving Safety Alignment of Large Language Models with Continual Learning},
  author  = {Alssum, Lama and Itani, Hani and Hammoud, Hasan Abed Al Kader and Torr, Philip and Bibi, Adel and
             Ghanem, Bernard},
  journal = {arXiv preprint arXiv:2512.10150},
  url     = {https://arxiv.org/abs/2512.10150},
  year    = {2025}
}"""


def package(version: str) -> str:
    """Return the BibTeX entry of this package.

    Args:
        version: the version that was used.
    """
    return f"""\
@software{{safe_sft,
  title   = {{safe\\_sft: supervised fine-tuning that keeps a language model's safety alignment}},
  version = {{{version}}},
  year    = {{2026}}
}}"""


def citations(methods: Iterable[str], version: str) -> list[tuple[str, str]]:
    """Return what to cite, as pairs of heading and BibTeX entry.

    Args:
        methods: names of the methods that were used.
        version: version of this package.
    """
    papers = [(f"the method `{name}`", METHODS[name].bibtex) for name in methods]
    return [("the study of these methods for safety", PAPER), *papers, ("this package", package(version))]
