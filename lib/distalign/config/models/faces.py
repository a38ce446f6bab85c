"""Face data sets: rendered, or published ones that are read from where you put them."""

from typing import Any, Literal

from pydantic import Field, model_validator

from distalign.config.models.base import Count, Model, Seed, Share

RENDERED_ONLY = ("identities",)
PUBLISHED_ONLY = ("path", "size", "old_from", "allowed_defects", "allowed_missed")


class Faces(Model):
    """A face data set with perceived attributes, made or read into one Parquet file."""

    source: Literal["rendered", "celeba", "fairface"] = Field(
        description="rendered (by the mini world) or a published data set (data.md)."
    )
    path: str | None = Field(
        None, description="For published data sets: the folder you downloaded; relative to the repository."
    )
    images: Count | None = Field(
        None, description="Number of images; unset: all of a published data set, otherwise so many of them, at random."
    )
    identities: Count | None = Field(None, description="For rendered: number of different people; unset: all differ.")
    seed: Seed = Field(0, description="Other seeds give other people, or draw other images of a published data set.")
    size: Count | None = Field(
        None,
        description="For published: side in pixels of the square that every image is fitted into, with black beside "
        "it; unset: images stay as they are, byte for byte, and must all have one size.",
    )
    old_from: Literal[20, 30, 40, 50, 60, 70] = Field(
        40, description="For fairface: age from which a face is labelled old, the lower end of an age bin."
    )
    allowed_defects: Share = Field(
        0.01,
        description="For published: largest share of images that are damaged, double, of another size, or without "
        "known labels. They are left out and listed; more of them are an error.",
    )
    allowed_missed: Share = Field(
        0.1, description="For published: largest share of images in which the detector finds no face."
    )

    @model_validator(mode="after")
    def _complete(self) -> "Faces":
        needed = "images" if self.source == "rendered" else "path"
        if getattr(self, needed) is None:
            raise ValueError(f"source {self.source} also needs {needed}")
        return self

    def meaning(self) -> dict[str, Any]:
        """The settings that matter to a data set of its source."""
        unused = set(PUBLISHED_ONLY if self.source == "rendered" else RENDERED_ONLY)
        if self.source == "celeba":
            unused.add("old_from")
        return self.model_dump(exclude=unused)
