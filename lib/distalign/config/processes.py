"""How many processes a job may have: as many as share N images evenly, and one per GPU."""


def uneven(images: int, processes: int) -> str | None:
    """What to do about N images that so many processes cannot share evenly; None where they can."""
    if images % processes == 0:
        return None
    below, above = images - images % processes, images + processes - images % processes
    possible = [n for n in range(1, images + 1) if images % n == 0]
    fewer = max(n for n in possible if n < processes)
    more = [n for n in possible if n > processes][:1]
    return (
        f"{images} images cannot be divided evenly among {processes} processes; "
        f"take {' or '.join(str(n) for n in (below, above) if n)} images, or "
        f"{' or '.join(map(str, [fewer, *more]))} processes (gpu of the preset's job, or of rule finetune in "
        "set-resources)"
    )


def too_many(processes: int, gpus: int, rule: str) -> str | None:
    """What to do about more processes than a machine shows GPUs; None where there are enough, or no GPU at all."""
    if not 0 < gpus < processes:
        return None
    return (
        f"gpu: the job asks for {processes} GPUs, but this machine shows it {gpus} (CUDA_VISIBLE_DEVICES); set gpu of "
        f"rule {rule} in set-resources to what there is"
    )
