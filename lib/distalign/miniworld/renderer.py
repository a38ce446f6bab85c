"""Portraits from the parameters of `people.py`, painted in batches of any picture size."""

import math

import numpy as np
import torch
from torch import Tensor

from distalign.miniworld.canvas import Canvas
from distalign.miniworld.people import Ints, People, Scene
from distalign.miniworld.world import CLOTHES, HEADWEAR, PATTERNS, STYLES

_EYE_Y = -0.07
_MOUTH_Y = 0.335


def render(people: People, scene: Scene, size: int = 64, oversample: int = 1, chunk: int = 64) -> Tensor:
    """Paint one portrait per person.

    Returns uint8 pictures (n, 3, size, size). `oversample` paints finer and averages; `chunk` bounds memory.
    """
    pictures = []
    for start in range(0, len(people), chunk):
        index: Ints = np.arange(start, min(start + chunk, len(people)))
        pictures.append(_Portrait(people.take(index), scene.take(index), size * oversample).paint(size))
    return torch.cat(pictures)


class _Portrait(Canvas):
    """One chunk of portraits in the making, painted back to front."""

    @torch.no_grad()
    def __init__(self, people: People, scene: Scene, size: int) -> None:
        super().__init__(self.value(scene.scale), self.value(scene.roll), scene.shift, size)
        self.people, self.scene = people, scene
        self.skin, self.hair = self.colour(people.skin), self.colour(people.hair)
        self.width, self.height = self.value(people.face_width), self.value(people.face_height)
        self.yaw, self.curl = self.value(scene.yaw), self.value(people.curl)
        self.wrinkles, self.phase = self.value(people.wrinkles), self.value(people.parting)
        self.face = torch.zeros(())

    @torch.no_grad()
    def paint(self, size: int) -> Tensor:
        self._background()
        self._back_hair()
        self._neck_and_clothes()
        self._head()
        self._nose_and_cheeks()
        self._beard_and_mouth()
        for side in (-1.0, 1.0):
            self._eye(side)
        self._age_lines()
        self._hair()
        self._headwear()
        self._accessories()
        self._style()
        image = self.image
        if self.size != size:
            image = torch.nn.functional.avg_pool2d(image, self.size // size)
        image = image + 0.010 * self._noise(size)
        return (image.clamp(0, 1) * 255).round().to(torch.uint8)

    def _noise(self, size: int) -> Tensor:
        # One generator per picture: a portrait does not depend on its neighbours in the batch.
        return torch.stack(
            [torch.randn(3, size, size, generator=torch.Generator().manual_seed(int(s))) for s in self.scene.noise]
        )

    def _background(self) -> None:
        upper, lower = (self.colour(self.scene.background[:, i]) for i in (0, 1))
        pattern = torch.as_tensor(self.scene.pattern).view(-1, 1, 1)
        plain = self.inside(0.22 - self.screen_y, 30.0)
        horizon = self.inside(0.05 - self.screen_y)
        stripes = self.inside((torch.sin(self.screen_x * 9.4) * 0.10).expand(self.n, -1, self.size))
        choices = {"plain": plain, "horizon": horizon, "stripes": stripes}
        mix = torch.zeros(self.n, self.size, self.size)
        for i, name in enumerate(PATTERNS):
            mix = torch.where(pattern == i, choices[name].expand_as(mix), mix)
        self.image = upper + (lower - upper) * mix[:, None]
        self.image = self.image * (1.02 - 0.05 * self.screen_x**2 - 0.05 * self.screen_y**2)[:, None]

    def _wave(self) -> Tensor:
        theta = torch.atan2(self.y + 0.15, self.x)
        return self.curl * (0.016 * torch.sin(19 * theta + self.phase) + 0.012 * torch.sin(31 * theta - self.phase))

    def _back_hair(self) -> None:
        length = self.value(self.people.hair_length)
        strands = 0.86 + 0.10 * torch.sin(self.x * 38 + self.phase) * (1 - self.curl)
        bottom = 0.10 + 0.62 * length
        mass = self.ellipse(0.0, 0.10, self.width * 1.40 + self._wave(), 0.80 + self._wave(), power=2.6)
        mass = mass * (length > 0) * self.inside(self.y - bottom, 3.0)
        self.cover(mass, self.hair * 0.74 * strands[:, None])

    def _neck_and_clothes(self) -> None:
        neck = self.value(self.people.neck)
        self.cover(self.ellipse(0.0, 0.62, neck, 0.34, power=4.0), self.skin * 0.80)
        self.shade(self.blob(0.0, 0.50, 0.24, 0.10), 0.82)
        kind = torch.as_tensor(self.scene.clothes).view(-1, 1, 1)
        worn = {name: kind == i for i, name in enumerate(CLOTHES)}
        cloth = self.colour(self.scene.clothes_colour)
        body = self.ellipse(0.0, 1.02, 0.46 + 0.9 * neck, 0.40, power=2.6)
        crew, vee = self.ellipse(0.0, 0.62, 0.15, 0.12), self.ellipse(0.0, 0.60, 0.12, 0.22)
        collar = torch.where(worn["scrubs"], vee, torch.where(worn["turtleneck"], torch.zeros_like(crew), crew))
        top = body * (1 - collar)
        self.cover(top, cloth * (1.02 - 0.22 * self.x.abs())[:, None])
        self.cover(worn["turtleneck"] * self.ellipse(0.0, 0.62, neck * 1.08, 0.14, power=4.0), cloth * 0.84)
        self.shade(worn["scrubs"] * self.ellipse(0.0, 0.60, 0.155, 0.265) * top, 0.72)
        white = self.colour((0.97, 0.97, 0.96))
        shirt = self.inside((self.x.abs() - (0.17 - 0.30 * (self.y - 0.70))) * 0.9) * self.inside(0.64 - self.y)
        tie = self.inside(self.x.abs() - 0.032 - 0.03 * (self.y - 0.7)) * self.inside(0.69 - self.y)
        self.cover(worn["suit"] * shirt * body, white)
        self.cover(worn["suit"] * tie * body, self.colour((0.55, 0.10, 0.12)))
        straps = self.inside((self.x.abs() - 0.24).abs() - 0.038) * self.inside(0.6 - self.y)
        bib = self.inside(self.x.abs() - 0.24) * self.inside(0.80 - self.y)
        self.cover(worn["apron"] * torch.maximum(straps, bib) * body, white)
        bands = torch.maximum(
            self.inside((self.x.abs() - 0.27).abs() - 0.045), self.inside((self.y - 0.87).abs() - 0.03)
        )
        self.cover(worn["vest"] * bands * top, self.colour((0.93, 0.95, 0.35)))

    def _head(self) -> None:
        ear = self.value(self.people.nose_length) * 0.56
        for side in (-1.0, 1.0):
            self.cover(self.ellipse(side * self.width + self.yaw * 0.3, 0.0, 0.052, ear), self.skin * 0.85)
        jaw = self.value(self.people.jaw)
        taper = 1 - (0.16 - 0.16 * jaw) * ((self.y - 0.05).clamp(0, 0.6) / 0.55) ** 1.3
        power = 2.0 + 0.75 * jaw * torch.sigmoid((self.y - 0.05) * 12)
        dx = (self.x / (self.width * taper)).abs().clamp_min(1e-4)
        dy = ((self.y - 0.02) / self.height).abs().clamp_min(1e-4)
        radius = (dx.pow(power) + dy.pow(power)).pow(1 / power)
        self.face = self.inside((radius - 1) * self.width)
        light = self.value(self.scene.light)
        shading = 1.03 - 0.24 * radius.clamp(0, 1.2) ** 3 + 0.11 * light * (self.x / self.width).clamp(-1, 1)
        self.cover(self.face, self.skin * shading[:, None])
        self.shade(self.face * self.blob(self.yaw * 0.8, -0.33, 0.22, 0.10), 1.06)

    def _nose_and_cheeks(self) -> None:
        turn, face = self.yaw * 1.6, self.face
        light = self.value(self.scene.light)
        width, tip = self.value(self.people.nose_width), _EYE_Y + self.value(self.people.nose_length)
        male = self.value(self.people.gender)
        spread = self.value(self.people.eye_distance)
        for side in (-1.0, 1.0):
            self.shade(face * self.blob(side * spread + turn, _EYE_Y - 0.015, 0.125, 0.085), 0.81 - 0.05 * male)
            blush = face * (0.28 - 0.20 * male) * self.blob(side * 0.25 + turn, 0.20, 0.10, 0.07)
            self.cover(blush, self.skin * self.colour((1.05, 0.73, 0.70)))
        self.shade(face * self.blob(turn * 1.3, 0.06, 0.030, 0.12), 1.12)
        self.shade(face * self.blob(turn * 1.3 - 0.055 * light.sign(), 0.08, 0.030, 0.11), 0.87)
        self.shade(face * self.blob(turn * 1.3, tip + 0.07, 0.05, 0.030), 1.09)
        self.shade(face * self.blob(turn * 1.2, tip + 0.125, width * 0.95, 0.022), 0.72)
        for side in (-1.0, 1.0):
            nostril = self.ellipse(turn * 1.2 + side * width * 0.52, tip + 0.112, width * 0.30, 0.016, softness=1.5)
            self.cover(face * nostril * 0.85, self.skin * 0.32)
            self.shade(face * self.blob(turn * 1.2 + side * width * 1.02, tip + 0.085, 0.022, 0.035), 0.81)
        spots = torch.sin(self.x * 71 + self.phase) * torch.sin(self.y * 83 - self.phase)
        freckled = self.value(self.people.freckles) * (spots > 0.55) * self.blob(turn, 0.08, 0.26, 0.09)
        self.shade(face * freckled, 0.80)

    def _beard_and_mouth(self) -> None:
        turn, face = self.yaw * 1.6, self.face
        along = (self.x / self.width).abs().clamp(0, 1)
        low = torch.sigmoid((self.y - 0.20 - 0.25 * (1 - along) ** 2) * 28)
        beard = face * low * (1 - 0.80 * self.blob(turn, _MOUTH_Y, 0.16, 0.06)) * self.value(self.people.beard)
        self.cover(beard * 0.88, self.hair * 0.78 * (0.9 + 0.12 * torch.sin(self.x * 60 + self.phase))[:, None])
        upper_lip = self.ellipse(turn, _MOUTH_Y - 0.062, 0.16, 0.034, softness=1.6)
        self.cover(face * self.value(self.people.moustache) * upper_lip, self.hair * 0.74)
        width, lips = self.value(self.people.mouth_width), self.value(self.people.lips)
        smile, tint = self.value(self.scene.smile), self.value(self.people.lip_tint)[:, None]
        middle = _MOUTH_Y - smile * ((self.x - turn) / width) ** 2 + smile * 0.3
        own, red = self.skin * self.colour((0.86, 0.56, 0.54)), self.skin * 0.30 + self.colour((0.42, 0.10, 0.13))
        lip = own + (red - own) * tint
        self.cover(self.ellipse(turn, middle + lips * 0.42, width * 0.86, lips, softness=1.2), lip * 1.08)
        self.cover(self.ellipse(turn, middle - lips * 0.30, width, lips * 0.78, 1.7, 1.2), lip * 0.88)
        parted = self.inside((self.y - middle).abs() - 0.009) * self.ellipse(turn, _MOUTH_Y, width * 0.97, 0.2)
        self.cover(parted, self.skin * 0.22 + 0.02)
        self.shade(face * self.blob(turn, _MOUTH_Y + 0.10, 0.11, 0.022), 0.83)

    def _eye(self, side: float) -> None:
        people, face = self.people, self.face
        width, height = self.value(people.eye_width), self.value(people.eye_height)
        cx = side * self.value(people.eye_distance) + self.yaw * 1.6
        dx = self.x - cx
        dy = self.y - _EYE_Y + side * self.value(people.eye_tilt) * dx
        along = (dx / width).abs()
        lid = height * (1 - along.clamp(0, 1) ** 2.2)
        opening = self.inside(dy.abs() - lid * torch.where(dy < 0, 1.0, 0.78)) * (along < 1)
        self.cover(opening, self.colour((0.95, 0.94, 0.93)) * (0.92 - 0.12 * (dy < -0.2 * height).float())[:, None])
        radius = ((dx - self.yaw * 0.15) ** 2 + (dy + 0.004) ** 2).sqrt()
        self.cover(opening * self.inside(radius - 0.043), self.colour(people.iris))
        self.cover(opening * self.inside(radius - 0.021), self.colour((0.03, 0.02, 0.02)))
        glint = ((dx - 0.016) ** 2 + (dy + 0.018) ** 2).sqrt() - 0.011
        self.cover(opening * self.inside(glint), self.colour((1.0, 1.0, 1.0)))
        lash = self.inside((dy + lid).abs() - (0.010 + 0.012 * self.value(people.lashes))) * (along < 1.08)
        self.cover(lash, self.colour((0.063, 0.045, 0.045)) + self.skin * 0.08)
        self.shade(face * self.blob(cx, _EYE_Y - height - 0.035, width, 0.014), 0.81)
        self.shade(face * self.blob(cx, _EYE_Y + height + 0.022, width * 0.9, 0.016), 0.90 - 0.16 * self.wrinkles)
        brow_y = self.y - (_EYE_Y - self.value(people.brow_height)) - 0.30 * dx * dx / width
        thickness = self.value(people.brow) * (1 - 0.35 * (side * dx / (width * 1.3)).clamp(-1, 1))
        brow = self.inside(brow_y.abs() - thickness) * self.inside(dx.abs() - width * 1.22, 2.0)
        self.cover(face * brow * 0.92, self.hair * 0.55 + self.skin * 0.06)

    def _age_lines(self) -> None:
        turn, face, wrinkles = self.yaw * 1.6, self.face, self.wrinkles
        spread, width = self.value(self.people.eye_distance), self.value(self.people.eye_width)
        for side in (-1.0, 1.0):
            out = side * (self.x - turn)
            corner = (out > spread + width * 1.05) & (out < spread + width * 1.9)
            for k in (-1, 0, 1):
                crow = (self.y - _EYE_Y - 0.01 - k * 0.03 - (out - spread - width * 1.1) * k * 0.45).abs()
                self.shade(face * self.inside(crow - 0.006, 1.3) * corner * wrinkles, 0.66)
            fold = (out - 0.13 - 0.30 * (self.y - 0.20).clamp(0, 0.3)).abs()
            reach = (self.y > 0.17) & (self.y < 0.40)
            self.shade(face * self.inside(fold - 0.009, 1.6) * reach * (wrinkles * 0.9 + 0.08), 0.82)
        for k in range(3):
            crease = (self.y + 0.29 + 0.065 * k - 0.012 * torch.sin(self.x * 11 + k)).abs()
            self.shade(face * self.inside(crease - 0.007, 1.5) * (self.x.abs() < 0.24) * wrinkles, 0.80)

    def _hair(self) -> None:
        wave, length = self._wave(), self.value(self.people.hair_length)
        bald = self.value(self.people.hairline)
        full = bald < 0.99
        rx = (self.x / (self.width * 1.10 + wave * 1.2)).abs()
        ry = ((self.y + 0.04) / (self.height * 1.12 + wave * 1.4 + 0.045 * self.curl)).abs()
        radius = (rx.pow(2.1) + ry.pow(2.1)).clamp_min(1e-9).pow(1 / 2.1)
        cap = self.inside((radius - 1) * self.width)
        across = (self.x / self.width).abs().clamp(0, 1.3)
        short = 0.10 * across**2 + 0.30 * across**6
        framing = 0.42 * across**2.2 + 0.05 * torch.sin(self.phase)
        line = -0.31 - 0.10 * bald + torch.where(length > 0, framing, short)
        line = line + self.curl * 0.015 * torch.sin(self.x * 40 + self.phase)
        straight = 0.09 * torch.sin(self.x * 30 + self.y * 8 + self.phase) * (1 - self.curl)
        coils = 0.08 * torch.sin(self.x * 46 + self.phase) * torch.sin(self.y * 46 + self.phase) * self.curl
        colour = self.hair * (0.92 + straight + coils + 0.20 * self.blob(-0.10, -0.50, 0.20, 0.10))[:, None]
        self.cover(cap * self.inside(self.y - line) * full, colour)
        sides = cap * (1 - self.face) * self.inside(-0.30 - self.y) * self.inside(self.y - 0.12)
        self.cover(sides * ~full, colour)
        self.shade(self.blob(-0.08, -0.40, 0.12, 0.08) * ~full * self.face, 1.14)
        strand = self.inside((self.x.abs() - self.width * 1.12).abs() - (0.070 + wave * 0.6))
        reach = self.inside(-0.25 - self.y) * self.inside(self.y - 0.10 - 0.50 * length, 2.0)
        self.cover((length > 0) * strand * reach * self.inside(radius - 1.9), colour * 0.88)

    def _headwear(self) -> None:
        kind = torch.as_tensor(self.scene.headwear).view(-1, 1, 1)
        worn = {name: kind == i for i, name in enumerate(HEADWEAR)}
        cloth = self.colour(self.scene.clothes_colour) * 0.92
        wide = (self.x / (self.width * 1.17)).abs()
        tall = ((self.y + 0.06) / (self.height * 1.20)).abs()
        radius = (wide.pow(2.3) + tall.pow(2.3)).clamp_min(1e-9).pow(1 / 2.3)
        dome = self.inside((radius - 1) * self.width) * self.inside(self.y + 0.36)
        self.cover(dome * worn["cap"], cloth)
        self.cover(self.ellipse(0.0, -0.365, self.width * 1.12, 0.050) * worn["cap"], cloth * 0.68)
        yellow = self.colour((0.96, 0.80, 0.14))
        self.cover(dome * worn["helmet"], yellow * (1.0 - 0.2 * self.x.abs())[:, None])
        self.cover(self.ellipse(0.0, -0.375, self.width * 1.32, 0.042) * worn["helmet"], yellow * 0.86)
        toque = self.inside(self.x.abs() - self.width * (1.0 - 0.25 * (self.y + 0.38))) * self.inside(self.y + 0.36)
        toque = toque * self.inside(-0.92 - self.y)
        self.cover(toque * worn["toque"], self.colour((0.97, 0.97, 0.95)) * (1.0 - 0.16 * self.x.abs())[:, None])
        band = self.inside((self.y + 0.37 + 0.05 * (self.x / self.width) ** 2).abs() - 0.05)
        self.cover(band * dome.maximum(self.face) * worn["headband"], cloth)

    def _accessories(self) -> None:
        turn, spread = self.yaw * 1.6, self.value(self.people.eye_distance)
        worn = torch.as_tensor(self.scene.glasses).view(-1, 1, 1) == 1
        frame = self.colour((0.12, 0.12, 0.14))
        for side in (-1.0, 1.0):
            dx = ((self.x - side * spread - turn) / 0.132).abs()
            dy = ((self.y - _EYE_Y - 0.01) / 0.105).abs()
            rim = ((dx.pow(2.6) + dy.pow(2.6)).clamp_min(1e-9).pow(1 / 2.6) - 1).abs() * 0.115
            self.cover(worn * self.inside(rim - 0.010), frame)
            ring = torch.as_tensor(self.scene.earrings).view(-1, 1, 1) == 1
            self.cover(
                ring * self.ellipse(side * self.width * 1.03, 0.17, 0.028, 0.034), self.colour((0.93, 0.80, 0.35))
            )
        bridge = self.inside((self.y - _EYE_Y).abs() - 0.009) * ((self.x - turn).abs() < spread - 0.125)
        self.cover(worn * bridge, frame)

    def _style(self) -> None:
        image = self.image * self.value(self.scene.brightness)[:, None]
        style = torch.as_tensor(self.scene.style).view(-1, 1, 1, 1)
        grey = (image * self.colour((0.30, 0.59, 0.11))).sum(1, keepdim=True).expand_as(image)
        canvas = 0.05 * torch.sin(self.screen_x * 55 + 6 * torch.sin(self.screen_y * 17))[:, None]
        oil = torch.round(image * 6) / 6 * self.colour((1.05, 0.95, 0.76)) + canvas
        noise = torch.nn.functional.avg_pool2d(self._noise(self.size)[:, :1], 3, 1, 1)
        flakes = self.inside((0.78 - noise[:, 0]) * 0.12)[:, None]
        variants = {
            "photo": image,
            "black and white": grey,
            "oil painting": oil,
            "at night": image * self.colour((0.50, 0.55, 0.80)),
            "in the snow": image * 0.94 * (1 - flakes) + flakes,
            "at sunset": image * self.colour((1.12, 0.86, 0.62)) + 0.02,
        }
        for i, name in enumerate(STYLES):
            if name != "photo":
                image = torch.where(style == i, variants[name], image)
        self.image = image


def contact_sheet(pictures: Tensor, columns: int) -> np.ndarray:
    """Tile uint8 pictures (n, 3, h, w) row by row into one HWC array; the last row is filled with white."""
    n, _, h, w = pictures.shape
    rows = math.ceil(n / columns)
    sheet = torch.full((rows * columns, 3, h, w), 255, dtype=torch.uint8)
    sheet[:n] = pictures
    return sheet.view(rows, columns, 3, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, 3).numpy()
