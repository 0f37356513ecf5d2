"""The authors' scaler files as a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdsearch.chain import Chain
from rdsearch.errors import ChainError
from rdsearch.family import ESM2
from rdsearch.scalers import import_scalers

from . import authors
from .synthetic import residues

WIDTHS = {member.name: member.width for member in ESM2.members}
VECTORS = residues(4, 50, (320, 480, 640))


def scaler(start: str, end: str, seed: int = 0, kept: int = 7) -> dict[str, Any]:
    """Arrays of the published form, with made-up numbers."""
    rng = np.random.default_rng(seed)
    k, d = WIDTHS[start], WIDTHS[end]
    return {
        "regressor__coef_": rng.standard_normal((d, kept)) / 10,
        "regressor__intercept_": rng.standard_normal(d) / 10,
        "regressor__input_mean_": rng.standard_normal(k),
        "regressor__output_mean_": rng.standard_normal(d),
        "regressor__input_components_": np.linalg.qr(rng.standard_normal((k, k)))[0],
        "regressor__input_eigenvalues_": np.arange(k, 0, -1.0),
        "regressor__n_significant_pcs_": np.int64(kept),
        "regressor__johnstone_threshold_": 0.5,
        "regressor__sigma_sq_": 0.25,
        "pca__mean_": rng.standard_normal(d) / 10,
        "pca__components_": np.linalg.qr(rng.standard_normal((d, d - k)))[0].T,
        "pca__n_components": d - k,
    }


def write(folder: Path, start: str, end: str, **changes: Any) -> Path:
    path = folder / f"rd-scaler-{start}-{end}-pcr-incremental-1k.npz"
    arrays = {**scaler(start, end), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def by_hand(arrays: dict[str, Any], base: np.ndarray, member: np.ndarray) -> np.ndarray:
    """The authors' step, written from their formulas."""
    kept = arrays["regressor__n_significant_pcs_"]
    scores = (base - arrays["regressor__input_mean_"]) @ arrays["regressor__input_components_"][
        :, :kept
    ]
    predicted = scores @ arrays["regressor__coef_"].T + arrays["regressor__intercept_"]
    residual = member - (predicted + arrays["regressor__output_mean_"])
    part = (residual - arrays["pca__mean_"]) @ arrays["pca__components_"].T
    return np.concatenate([base, part], axis=1)


def test_the_formulas(tmp_path):
    paths = [write(tmp_path, "8M", "35M"), write(tmp_path, "35M", "150M")]
    chain = import_scalers(paths)
    assert (chain.family, chain.tiers, chain.boundaries) == (
        "esm2",
        ("8M", "35M", "150M"),
        (320, 480, 640),
    )
    assert chain.members == ESM2.members[:3]
    first, second = scaler("8M", "35M"), scaler("35M", "150M")
    expected = by_hand(second, by_hand(first, *VECTORS[:2]), VECTORS[2])
    np.testing.assert_allclose(chain.transform(VECTORS), expected, atol=1e-5)
    means = [first["regressor__input_mean_"], first["regressor__output_mean_"]]
    means.append(second["regressor__output_mean_"])
    means = [mean[None] for mean in means]
    mean = by_hand(second, by_hand(first, *means[:2]), means[2])[0]
    np.testing.assert_allclose(chain.mean("150M"), mean, atol=1e-12)
    step = chain.steps[0]
    assert step.report() == {
        "n_components": 7,
        "threshold": 0.5,
        "sigma2": 0.25,
        "r2": None,
        "captured": None,
    }
    assert chain.n_residues == 0


def test_an_imported_chain_is_a_chain_like_any_other(tmp_path):
    paths = [write(tmp_path, "8M", "35M"), write(tmp_path, "35M", "150M")]
    chain = import_scalers(reversed(paths))
    assert chain.hash == import_scalers(paths).hash
    assert chain.upto("35M").hash == import_scalers(map(str, paths[:1])).hash
    chain.save(tmp_path / "chain.safetensors")
    loaded = Chain.load(tmp_path / "chain.safetensors")
    assert loaded.hash == chain.hash
    assert np.array_equal(loaded.transform(VECTORS), chain.transform(VECTORS))


def test_what_the_files_need_not_say(tmp_path):
    optional = dict.fromkeys(
        [
            "regressor__johnstone_threshold_",
            "regressor__sigma_sq_",
            "regressor__input_eigenvalues_",
            "pca__n_components",
        ]
    )
    chain = import_scalers([write(tmp_path, "8M", "35M", **optional)])
    assert (chain.steps[0].threshold_, chain.steps[0].sigma2_) == (None, None)
    renamed = write(tmp_path, "8M", "35M").rename(tmp_path / "mine.npz")
    assert import_scalers([renamed]).tiers == ("8M", "35M")
    # An array that is not needed stays unread, whatever it is.
    other = write(tmp_path, "8M", "35M", other=np.array([{}], dtype=object))
    assert import_scalers([other]).tiers == ("8M", "35M")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regressor__coef_": np.array([{}], dtype=object)}, "allow_pickle=False"),
        ({"regressor__input_mean_": None}, "no array regressor__input_mean_; only scalers with"),
        ({"pca__mean_": np.full(480, np.nan)}, "pca__mean_ hold NaN"),
        ({"pca__mean_": np.zeros(320)}, r"pca__mean_ must have shape \(480,\), found \(320,\)"),
        ({"pca__components_": np.zeros((480, 160))}, r"must have shape \(160, 480\)"),
        ({"regressor__coef_": np.zeros((480, 8))}, r"must have shape \(480, 7\)"),
        ({"regressor__input_components_": np.float64(1)}, r"7.0 of 0 components"),
        ({"regressor__n_significant_pcs_": 0}, r"0.0 of 320 components"),
        ({"regressor__n_significant_pcs_": 321}, r"321.0 of 320 components"),
        ({"regressor__n_significant_pcs_": 7.5}, "7.5 of 320 components"),
        ({"regressor__n_significant_pcs_": np.array([7, 7])}, "components cannot be kept"),
        ({"regressor__input_mean_": np.zeros(321)}, "from 321 to 480 dimensions"),
        ({"regressor__input_mean_": np.zeros(640)}, "from 640 to 480 dimensions"),
        ({"regressor__intercept_": np.array(["x"] * 480)}, "not a usable rd scaler"),
    ],
)
def test_files_that_are_no_scaler(changes, message, tmp_path):
    path = write(tmp_path, "8M", "35M", **changes)
    with pytest.raises(ChainError, match=message) as caught:
        import_scalers([path])
    assert str(path) in str(caught.value)


def test_damaged_and_absent_files(tmp_path):
    path = write(tmp_path, "8M", "35M")
    data = path.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    for content in (b"", b"PK\3\4", b"no archive", data[:-30], (tmp_path / "one.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ChainError, match="not a usable rd scaler"):
            import_scalers([path])
    damaged = bytearray(data)
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ChainError, match="CRC-32"):
        import_scalers([path])
    with pytest.raises(ChainError, match="there is no scaler file here"):
        import_scalers([tmp_path / "absent.npz"])
    with pytest.raises(ChainError, match="at least one scaler file"):
        import_scalers([])


def test_files_that_do_not_make_one_chain(tmp_path):
    first, third = write(tmp_path, "8M", "35M"), write(tmp_path, "150M", "650M")
    with pytest.raises(ChainError, match=r"begins with member 150M, but .* ends with 35M"):
        import_scalers([first, third])
    with pytest.raises(ChainError, match="exactly one file for each step"):
        import_scalers([first, first])
    misnamed = first.rename(tmp_path / "rd-scaler-35M-150M-pcr-fbpca-1k.npz")
    with pytest.raises(ChainError, match="its name says 35M to 150M, its arrays lead from 8M to"):
        import_scalers([misnamed])


@pytest.mark.parity
@pytest.mark.parametrize("pca", ["fbpca", "incremental"])
def test_the_numbers_of_the_authors_own_step(pca, tmp_path, monkeypatch):
    rd = authors.scalers()
    torch = pytest.importorskip("torch")
    np.random.seed(0)  # fbpca draws from the global generator.
    vectors = residues(21, 900, (320, 480, 640))
    paths = {}
    for i, (start, end) in enumerate([("8M", "35M"), ("35M", "150M")]):
        fitted = rd.rdScaler(start, end, regressor_type="pcr", pca_type=pca)
        fitted.fit(vectors[i], vectors[i + 1], show_r2=False)
        paths[end] = tmp_path / f"rd-scaler-{start}-{end}-pcr-{pca}-1k.npz"
        np.savez(paths[end], **fitted.get_state_dict())

    # Their own reader, given these files in place of the download, finds them by the same names.
    def downloaded(repo_id: str, filename: str) -> str:
        return str(tmp_path / Path(filename).name)

    for module in ("rd", "modules"):
        monkeypatch.setattr(f"reverse_distillation.scaler.{module}.hf_hub_download", downloaded)
    theirs = torch.from_numpy(vectors[0])
    for end, member in zip(paths, vectors[1:], strict=True):
        loaded = rd.rdScaler.from_pretrained(f"rd.esm2/{end}:pcr-{pca}-1k")
        theirs = loaded.step(theirs, torch.from_numpy(member))

    ours = import_scalers(paths.values()).transform(vectors)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)
    assert ours[:, :320].tobytes() == vectors[0].tobytes()
