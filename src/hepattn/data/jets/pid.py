"""Charge and kind of the particles that reach a detector, from their PDG id."""

# P particles

import numpy as np

from hepattn.data.error import DataError

CHARGED_HADRONS = (211, 321, 2212, 3222)  # positive if the id is
NEGATIVE_HADRONS = (3112, 3312, 3334)  # negative if the id is positive
NEUTRAL_HADRONS = (130, 310, 2112, 3122, 3322)
LEPTONS = (11, 13)  # negative if the id is positive
PHOTON = 22
KNOWN = (*CHARGED_HADRONS, *NEGATIVE_HADRONS, *NEUTRAL_HADRONS, *LEPTONS, PHOTON)

PID_FEATURES = (
    "part_charge",
    "part_isChargedHadron",
    "part_isNeutralHadron",
    "part_isPhoton",
    "part_isElectron",
    "part_isMuon",
    "part_isCHad",
    "part_isNHad",
)


def check_pdgid(pdgid: np.ndarray, name: str) -> np.ndarray:
    """Refuse ids that say nothing.

    Args:
        pdgid: PDG ids (P).
        name: What the message calls their source.

    Returns:
        The ids in int64.

    Raises:
        DataError: If all are zero, or one is of no particle that reaches a detector.
    """
    if len(pdgid) and not pdgid.any():
        raise DataError.of(
            name,
            "part_pdgid",
            found="nothing but zeros",
            expected="PDG ids",
            remedy="use features without particle identification (kin)",
        )
    number = pdgid.astype(np.int64)
    known = np.isin(np.abs(number), KNOWN)
    if not known.all():
        raise DataError.of(
            name,
            "part_pdgid",
            found=number[np.argmin(known)],
            expected=f"± one of {', '.join(map(str, KNOWN))}",
        )
    return number


def pid_feature(pdgid: np.ndarray, feature: str) -> np.ndarray:
    """Charge, or whether a particle is of a kind.

    ``part_isCHad`` and ``part_isNHad`` tell hadrons apart by weight: 1 for π±, 0.5 for K±, 0.2
    for p; 1 for K⁰, 0.2 for n.

    Args:
        pdgid: PDG ids (P) in int64, checked.
        feature: One of ``PID_FEATURES``.

    Returns:
        Its column (P) in float32.
    """
    kind = np.abs(pdgid)
    match feature:
        case "part_charge":
            negative = np.isin(kind, (*NEGATIVE_HADRONS, *LEPTONS))
            values = np.sign(pdgid) * (np.isin(kind, CHARGED_HADRONS) - 1.0 * negative)
        case "part_isChargedHadron":
            values = np.isin(kind, (*CHARGED_HADRONS, *NEGATIVE_HADRONS))
        case "part_isNeutralHadron":
            values = np.isin(kind, NEUTRAL_HADRONS)
        case "part_isPhoton":
            values = kind == PHOTON
        case "part_isElectron":
            values = kind == LEPTONS[0]
        case "part_isMuon":
            values = kind == LEPTONS[1]
        case "part_isCHad":
            values = (kind == 211) + 0.5 * (kind == 321) + 0.2 * (kind == 2212)
        case "part_isNHad":
            values = (kind == 130) + 0.2 * (kind == 2112)
        case _:
            raise ValueError(f"feature {feature!r} is none of {', '.join(PID_FEATURES)}")
    return values.astype(np.float32)
