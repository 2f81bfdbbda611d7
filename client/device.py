"""The device that a hospital trains on: its processor, or a GPU where site.yaml says `device: cuda`.

A GPU gives no promise of bits: additions happen in an order of its own, so that a run repeats itself within rounding.
What protects patients does not rest on that: the clip and the whole sum of the engine `alone` and all noise are worked
out on the processor (strategies/privacy/engines/base.py). Engines that are not for a GPU train on the processor as
ever, linear models among them, which are quicker there.

>>> device_for("cuda", "closed form"), device_for("cuda", "alone"), device_for("cpu", "alone")
('cpu', 'cuda', 'cpu')
"""

from pathlib import Path

from client.findings import IT, NOTE, OK, WRONG, Finding
from configs.errors import RunError
from configs.site import SiteConfig

CPU, CUDA = "cpu", "cuda"
NVIDIA = Path("/proc/driver/nvidia/version")  # there where a driver is loaded
_TODO = "install NVIDIA's driver and a PyTorch with CUDA (make setup TORCH=...), or write device: cpu in site.yaml"


def device_for(asked: str, of_model: str, of_study: str = "auto") -> str:
    """Return where a model is trained.

    Args:
        asked: by site.yaml; of_model, of_study: the engines that the architecture and the study name.
    """
    from strategies.privacy.engines.select import engine_kind  # PyTorch, which `check` starts without

    return asked if engine_kind(of_model, of_study).on_cuda else CPU


def why_no_cuda() -> str:
    """Return why PyTorch has no CUDA device here, and nothing where it has one."""
    if not NVIDIA.exists():
        return "no NVIDIA driver is loaded"
    import torch  # seconds, only where there may be a GPU

    if torch.version.cuda is None:
        return "PyTorch was installed without CUDA"
    return "" if torch.cuda.is_available() else "PyTorch finds no GPU that it can use"


def require_device(device: str) -> None:
    """Check that a device is there, before anything is booked.

    Raises:
        RunError: it is not; the text says who mends it.
    """
    if device == CUDA and (why := why_no_cuda()):
        raise RunError(f"device: expected a GPU with CUDA, as site.yaml says, but {why}; {IT}: {_TODO}")


def look_at_device(config: SiteConfig) -> Finding:
    """Return what `archipel-site check` says of it."""
    if config.device == CPU:
        loaded = "an NVIDIA driver is loaded, which is not needed" if NVIDIA.exists() else "none"
        return Finding("gpu", NOTE, f"{loaded}; training uses the processor")
    if why := why_no_cuda():
        return Finding("gpu", WRONG, f"site.yaml says device: cuda, but {why}: no network trains here", IT, _TODO)
    text = "networks train on the GPU; a run there repeats itself within rounding, not to the bit"
    return Finding("gpu", OK, f"{text}, and linear models train on the processor")
