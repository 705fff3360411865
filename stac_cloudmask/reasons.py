"""Why a pixel has its class, in sentences: what each source said, and what the merge policy made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stac_cloudmask.core.cells import SCL_CIRRUS
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.evidence import Vote
from stac_cloudmask.core.policy import RULES

SCL_NAMES: Final = (
    "no data", "saturated or defective", "dark area or topographic shadow", "cloud shadow", "vegetation", "bare soil",
    "water", "unclassified", "cloud, medium probability", "cloud, high probability", "thin cirrus", "snow or ice",
)  # fmt: skip
"""Names of the product's classes, by code."""

CLOUD_VOTES: Final = Vote.PRODUCT_CLOUD | Vote.CLOUD_MODEL
SHADOW_VOTES: Final = Vote.PRODUCT_SHADOW | Vote.SHADOW_MODEL
BRIGHT: Final = "many dates tell of a bright surface, or it is the buffer of one: as the product has it"

CERTAIN: Final = f"a mean cloud probability of {RULES.seed} % over {RULES.cell:g} m, or a product cloud that is trusted"
HINTED: Final = f"the model sees more than {RULES.hint} % of cloud in {100 * RULES.support:g} % of the object"


@dataclass(frozen=True, kw_only=True)
class PixelFacts:
    """All that is published of one pixel; None where it is not.

    Attributes:
        code: Its class.
        votes: Who said what.
        scl: The product's class.
        cloud: Cloud probability in percent, rounded up.
        shadow: The same for cloud shadow.
        merge: Policy and parameters, by the names of the item.
        cloud_codes: Product classes that vote cloud.
        shadow_codes: Product classes that vote shadow.
    """

    code: CloudClass
    votes: Vote | None
    scl: int | None
    cloud: int | None
    shadow: int | None
    merge: Mapping[str, float | str | None]
    cloud_codes: tuple[int, ...]
    shadow_codes: tuple[int, ...]


def reasons(facts: PixelFacts) -> tuple[str, ...]:
    """The chain from what the sources said to the class of a pixel."""
    if facts.code == CloudClass.NODATA:
        return ("no data: the models have no pixel here, or the product says so",)
    said = [*_product(facts), *_models(facts)]
    if facts.votes is None:
        return tuple(said)
    return (*said, *(_calibrated(facts) if facts.merge.get("policy") == "calibrated" else _simple(facts)))


def _product(facts: PixelFacts) -> Iterator[str]:
    if facts.scl is not None:
        vote = "no vote"
        if facts.scl in facts.cloud_codes:
            vote = "a vote for cloud"
        elif facts.scl in facts.shadow_codes:
            vote = "a vote for cloud shadow"
        name = SCL_NAMES[facts.scl] if facts.scl < len(SCL_NAMES) else "unknown"
        yield f"the product's class is {facts.scl} ({name}): {vote}"
    elif facts.votes is not None and facts.votes & Vote.PRODUCT_CLOUD:
        yield "the product votes for cloud"
    elif facts.votes is not None and facts.votes & Vote.PRODUCT_SHADOW:
        yield "the product votes for cloud shadow"


def _models(facts: PixelFacts) -> Iterator[str]:
    for name, percent, bit, setting in (
        ("cloud", facts.cloud, Vote.CLOUD_MODEL, "cloud_thr"),
        ("cloud shadow", facts.shadow, Vote.SHADOW_MODEL, "shadow_thr"),
    ):
        threshold = f"{100 * float(facts.merge.get(setting) or 0):g} %"
        if percent is not None:
            above = percent > round(100 * float(facts.merge.get(setting) or 0))
            verb = "above the threshold of" if above else "not above the threshold of"
            yield f"the probability of {name} is {percent} %, {verb} {threshold}: {'a' if above else 'no'} vote"
        elif facts.votes is not None:
            voted = bool(facts.votes & bit)
            yield f"the model's probability of {name} is {'above' if voted else 'not above'} {threshold}"


def _simple(facts: PixelFacts) -> Iterator[str]:
    votes = facts.votes or Vote(0)
    if votes & Vote.BRIGHT:
        yield BRIGHT
    elif votes & Vote.BUFFER:
        yield _buffer(facts)
    elif facts.code != CloudClass.CLEAR:
        yield f"policy {facts.merge.get('policy')}: any vote counts, cloud before shadow"
    elif votes & Vote.REMOVED:
        yield f"removed: its object is smaller than {facts.merge.get('min_area') or 0:g} m2"
    else:
        yield "nobody votes: clear"


def _calibrated(facts: PixelFacts) -> Iterator[str]:
    votes = facts.votes or Vote(0)
    if votes & Vote.BRIGHT:
        yield BRIGHT
        return
    if votes & Vote.REMOVED:
        yield from (f"removed: {why}" for why in _removals(facts, votes))
    if votes & Vote.BUFFER:
        yield _buffer(facts)
    elif facts.code == CloudClass.CLOUD:
        yield _cloud(facts, votes)
    elif facts.code == CloudClass.CLOUD_SHADOW:
        yield f"shadow: {_lit(facts, dark=True)}"
        if votes & CLOUD_VOTES:
            yield "its votes for cloud yield, as the model holds it for shadow rather than cloud"
    elif not votes:
        yield "nobody votes: clear"


def _cloud(facts: PixelFacts, votes: Vote) -> str:
    if votes & Vote.CLOUD_MODEL:
        return f"cloud: its object is certain somewhere, by {CERTAIN}"
    if facts.scl == SCL_CIRRUS:
        return f"cloud: thin cirrus of the product counts where the model sees more than {RULES.cirrus} % of cloud"
    return f"cloud: a cloud of the product is trusted where {HINTED}"


def _removals(facts: PixelFacts, votes: Vote) -> Iterator[str]:
    """What can have taken votes away; the survey of the whole scene, which knows, is not kept."""
    if votes & Vote.CLOUD_MODEL:
        yield f"no part of the model's cloud is certain, by {CERTAIN}"
    elif votes & Vote.PRODUCT_CLOUD and facts.scl == SCL_CIRRUS:
        yield f"thin cirrus of the product counts only where the model sees more than {RULES.cirrus} % of cloud"
    elif votes & Vote.PRODUCT_CLOUD:
        yield f"a cloud of the product is trusted only where {HINTED}"
    if votes & Vote.SHADOW_MODEL:
        yield _lit(facts, dark=False)
    elif votes & Vote.PRODUCT_SHADOW:
        yield from _product_shadow(facts)
    if facts.merge.get("min_area"):
        yield f"or its object is smaller than {facts.merge['min_area']:g} m2"


def _product_shadow(facts: PixelFacts) -> Iterator[str]:
    if facts.shadow is None or facts.shadow <= RULES.product_shadow:
        yield f"shadow of the product counts only where the model sees more than {RULES.product_shadow} % of shadow"
    if facts.shadow is None or facts.shadow > RULES.product_shadow:
        yield _lit(facts, dark=False)


def _lit(facts: PixelFacts, *, dark: bool) -> str:
    """What sun and near infrared say for shadow (``dark``) or against it."""
    azimuth, elevation, edge = (facts.merge.get(name) for name in ("sun_azimuth", "sun_elevation", "shadow_edge"))
    parts = []
    if azimuth is not None and elevation is not None:
        sun = f"with the sun at azimuth {azimuth:.0f} and elevation {elevation:.0f} degrees"
        parts.append(f"{'a' if dark else 'no'} cloud that was found can cast it here {sun}")
    if edge is not None:
        level = f"{100 * float(edge):.0f} % of what lit ground nearby has"
        parts.append(f"its near infrared is {'at most' if dark else 'more than'} {level}")
    if not parts:
        return "votes for shadow count, as neither sun nor near infrared is known" if dark else "cloud is close"
    return (" and " if dark else ", or ").join(parts)


def _buffer(facts: PixelFacts) -> str:
    name, setting = ("cloud", "cloud_buffer") if facts.code == CloudClass.CLOUD else ("cloud shadow", "shadow_buffer")
    return f"added: {name} lies within {facts.merge.get(setting) or 0:g} m"
