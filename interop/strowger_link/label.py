"""Labels: schemes, directors, steps and the arithmetic of paths (wire.md 1)."""

from dataclasses import dataclass

SELF_SLOT = 1


class LabelError(Exception):
    """An operation that has no result; `name` is that of wire.md."""

    def __init__(self, name, position=None):
        super().__init__(name if position is None else f"{name} at {position}")
        self.name, self.position = name, position


def reverse_bits(value, bits):
    """The lowest `bits` bits of `value` in the opposite order."""
    return int(format(value & ((1 << bits) - 1), f"0{bits}b")[::-1], 2) if bits else 0


def _log2(value):
    return value.bit_length() - 1


def _bounded(label, bits):
    """The label, if a register of `bits` bits can hold it as computed (W1.3-7)."""
    if label.bit_length() > bits - 4:
        raise LabelError("too_long")
    return label


@dataclass(frozen=True)
class Form:
    """A way to write slot numbers: data bits above a prefix (W1.1-1)."""

    data_bits: int
    prefix: int
    prefix_bits: int

    @property
    def width(self):
        """The width of a director of this form."""
        return self.data_bits + self.prefix_bits

    @property
    def is_self_form(self):
        """Whether the prefix is the beginning of the value 1 (W1.1-16)."""
        return self.prefix == 1 & ((1 << self.prefix_bits) - 1)

    def matches(self, label):
        """Whether the low bits of the label are this prefix."""
        return label & ((1 << self.prefix_bits) - 1) == self.prefix

    def data(self, label):
        """The data bits of the director in the low bits of the label."""
        return (label >> self.prefix_bits) & ((1 << self.data_bits) - 1)

    def director(self, data):
        """The director with these data bits."""
        return data << self.prefix_bits | self.prefix


@dataclass(frozen=True)
class Director:
    """What `Scheme.decode` reads."""

    slot: int
    width: int
    form: int


class Scheme:
    """How a switch writes the numbers of its slots (W1.1)."""

    def __init__(self, forms):
        """Raises `LabelError` unless the forms are sane (W1.1-2, W1.1-9, W1.1-10, W1.1-11, W1.1-12, W1.1-13, W1.1-14, W1.1-15)."""
        self.forms = tuple(forms)
        _check_sane(self.forms)
        self.self_form = next((form for form in self.forms if form.is_self_form), None)

    def __eq__(self, other):
        return isinstance(other, Scheme) and self.forms == other.forms

    def __hash__(self):
        return hash(self.forms)

    # Numbers and data bits

    @property
    def _skips_one(self):
        return self.forms == _V3X5X8

    def _data_of(self, slot, index):
        """The data bits for a slot other than 1 in a form (W1.1-4, W1.1-5, W1.1-18)."""
        if self._skips_one:
            if index == 0:
                return 1 if slot == 0 else slot
            return 0 if slot == 0 else slot - 1
        if self.self_form is not None and self.self_form.prefix_bits > 0:
            return slot ^ 1
        return slot

    def _slot_of(self, data, index):
        if self._skips_one:
            if index == 0:
                return data ^ 1 if data < 2 else data
            return 0 if data == 0 else data + 1
        if self.self_form is not None and self.self_form.prefix_bits > 0:
            return data ^ 1
        return data

    # Directors

    def encode(self, slot, width):
        """The director of exactly this width (W1.4-1)."""
        candidates = [i for i, form in enumerate(self.forms) if form.width == width]
        if not candidates:
            raise LabelError("no_such_width")
        if slot == SELF_SLOT:
            if self.self_form is None:
                raise LabelError("no_self")
            if width < self.self_form.width:
                raise LabelError("slot_too_wide")
            return 1  # W1.1-3, W1.1-17
        for index in candidates:  # W1.1-19
            data = self._data_of(slot, index)
            if data >> self.forms[index].data_bits == 0:
                return self.forms[index].director(data)
        raise LabelError("slot_too_wide")

    def widths(self):
        """All widths of directors, narrowest first."""
        return sorted({form.width for form in self.forms})

    def encode_narrowest(self, *slots):
        """Director of the first slot in the fewest bits that hold all slots, and its width (W1.4-9)."""
        if SELF_SLOT in slots and self.self_form is None:
            raise LabelError("no_self")
        for width in self.widths():
            try:
                directors = [self.encode(slot, width) for slot in slots]
            except LabelError:
                continue
            return directors[0], width
        raise LabelError("slot_too_wide")

    def decode(self, label):
        """The director in the low bits (W1.4-10)."""
        for index, form in enumerate(self.forms):
            if not form.matches(label):
                continue
            slot = self._slot_of(form.data(label), index)
            if slot == SELF_SLOT and not form.is_self_form:
                break  # W1.1-16
            return Director(slot, form.width, index)
        raise LabelError("no_such_director")

    # Serialisation

    def serialise(self):
        """The bytes of W1.1-7."""
        value = position = 0
        for form in self.forms:
            for number, bits in (
                (form.prefix_bits, 5),
                (form.data_bits, 5),
                (form.prefix, form.prefix_bits),
            ):
                value |= number << position
                position += bits
        return value.to_bytes((position + 7) // 8, "little")

    @classmethod
    def read(cls, data):
        """Reads a serialisation (W1.1-20, W1.1-21, W1.1-22)."""
        value, left = int.from_bytes(data, "little"), 8 * len(data)
        forms = []

        def take(bits):
            nonlocal value, left
            taken = value & ((1 << bits) - 1)
            value, left = value >> bits, left - bits
            return taken

        while left >= 10:
            if len(forms) == 31:
                raise LabelError("too_many_forms")
            prefix_bits, data_bits = take(5), take(5)
            if prefix_bits > left:
                raise LabelError("truncated")
            forms.append(Form(data_bits, take(prefix_bits), prefix_bits))
        if left >= 8 or value != 0:
            raise LabelError("trailing")
        return cls(forms)

    def usable_by_switch(self):
        """Whether a switch can use the scheme for its own slots (W1.1-8)."""
        if self.self_form is None:
            return False
        return not _alike(self.forms, 8)


def _alike(forms, bits):
    """Whether the prefixes of two forms agree in their lowest bits."""
    for index, one in enumerate(forms):
        for other in forms[index + 1 :]:
            shared = min(one.prefix_bits, other.prefix_bits, bits)
            if (one.prefix ^ other.prefix) & ((1 << shared) - 1) == 0:
                return True
    return False


def _check_sane(forms):
    if not forms:
        raise LabelError("no_forms")
    if len(forms) > 31:
        raise LabelError("too_many_forms")
    if len(forms) == 1 and forms[0].prefix_bits != 0:
        raise LabelError("needless_prefix")
    for form in forms:
        if len(forms) > 1 and form.prefix_bits == 0:
            raise LabelError("no_prefix")
        if form.prefix_bits > 31 or form.data_bits > 31 or form.width > 59:
            raise LabelError("form_too_wide")
        if form.data_bits == 0:
            raise LabelError("no_data")
        if form.prefix >> form.prefix_bits != 0:
            raise LabelError("prefix_too_wide")
    for one, other in zip(forms, forms[1:], strict=False):
        if other.data_bits <= one.data_bits:
            raise LabelError("not_ascending")
    if _alike(forms, 32):
        raise LabelError("not_prefix_free")


_V3X5X8 = (Form(3, 0b1, 1), Form(5, 0b10, 2), Form(8, 0b00, 2))

# W1.1-6
SCHEMES = {
    "f4": Scheme([Form(4, 0, 0)]),
    "f8": Scheme([Form(8, 0, 0)]),
    "v3x5x8": Scheme(_V3X5X8),
    "v4x8": Scheme([Form(4, 0b1, 1), Form(8, 0b0, 1)]),
}


# One step of a switch (W1.2)


@dataclass(frozen=True)
class Step:
    """What a switch makes of a label."""

    label: int
    shift: int
    out: int
    width: int


def step(scheme, label, shift, ingress, bits=64, *, taken=None, u_turns=False):
    """One step of a switch with this ingress slot; raises `LabelError` (W1.2-1, W1.2-2, W1.2-3, W1.2-4, W1.2-5, W1.2-6, W1.2-7, W1.2-8, W1.2-9).

    `taken` are the slots to which something is attached; without it, all are. A packet that ends
    at slot 1 comes back unchanged.
    """
    if label & ((1 << (bits - shift)) - 1) == 0:
        raise LabelError("label_spent")
    try:
        director = scheme.decode(label)
    except LabelError:
        raise LabelError("no_director") from None
    if director.slot == SELF_SLOT:
        above = (label >> director.width) & ((1 << max(bits - shift - director.width, 0)) - 1)
        if above not in (0, 1):
            raise LabelError("beyond_endpoint")  # W1.3-1, W1.3-8, W1.3-9
        return Step(label, shift, SELF_SLOT, director.width)
    if taken is not None and director.slot not in taken:
        raise LabelError("empty_slot")
    if director.slot == ingress and ingress != SELF_SLOT and not u_turns:
        raise LabelError("u_turn")
    stepped, shift = rewrite(scheme, label, shift, ingress, director.width, bits)
    return Step(stepped, shift, director.slot, director.width)


def rewrite(scheme, label, shift, ingress, width, bits=64):
    """Label and shift with the ingress slot in place of a director of this width (W1.2-1)."""
    try:
        back = scheme.encode(ingress, width)
    except LabelError:
        raise LabelError("return_path") from None
    if shift + width >= bits:
        raise LabelError("label_full")
    return (label >> width) | (reverse_bits(back, width) << (bits - width)), shift + width


# Ends of a label (W1.3)


def reverse(label, shift, bits=64, scheme=None, ingress=None):
    """The return label of a packet (W1.3-4, W1.4-7)."""
    director = width = 0
    if ingress is not None:
        director, width = scheme.encode_narrowest(ingress)
    if shift >= bits:
        raise LabelError("shift_too_large")
    back = reverse_bits(label, bits) & ((1 << shift) - 1)
    back = _bounded(back << width | director, bits)
    if back == 0:
        raise LabelError("zero_label")
    return back


def from_neighbour(label, bits=64):
    """Label and shift of a packet of a node that is not a switch (W1.3-14)."""
    return label | 0b1000 << (bits - 4), 4


def from_endpoint(label, bits=64):
    """Label and shift of a packet of an endpoint (W1.3-6)."""
    return label | 1 << (bits - 1), 1


# Arithmetic (W1.4)


def splice(onward, first, bits=64):
    """The path of `first`, then that of `onward` (W1.4-2)."""
    if onward == 0 or first == 0:
        raise LabelError("zero_label")
    return _bounded((onward ^ 1) << _log2(first) ^ first, bits)


def unsplice(full, first):
    """What of `full` remains behind `first` (W1.4-11)."""
    if full == 0 or first == 0:
        raise LabelError("zero_label")
    if not routes_through(full, first):
        raise LabelError("not_through")
    return (full ^ first) >> _log2(first) ^ 1


def routes_through(label, via):
    """Whether `label` begins with the path of `via` (W1.4-3)."""
    if label == 0 or via == 0 or label.bit_length() < via.bit_length():
        return False
    return (label ^ via) & ((1 << _log2(via)) - 1) == 0


def is_one_hop(scheme, label):
    """Whether only the end marker follows the first director (W1.4-4)."""
    return label >> scheme.decode(label).width == 1


def hop_count(scheme, label):
    """The number of directors before the end (W1.4-12)."""
    if label == 0:
        raise LabelError("zero_label")
    hops = 0
    while label not in (0, 1):
        director = scheme.decode(label)
        if director.slot == SELF_SLOT:
            break
        label >>= director.width
        hops += 1
    return hops


def _with_first(label, old_width, director, width, bits):
    if old_width == width and label & ((1 << width) - 1) == director:
        return label
    return _bounded((label >> old_width) << width | director, bits)


def convert(scheme, label, form, bits=64):
    """The first director in the form of this index (W1.4-5)."""
    first = scheme.decode(label)
    if form >= len(scheme.forms):
        raise LabelError("no_such_form")
    target = scheme.forms[form]
    if first.slot == SELF_SLOT:
        if not target.is_self_form:
            raise LabelError("slot_too_wide")
        return _with_first(label, first.width, 1, target.width, bits)
    data = scheme._data_of(first.slot, form)
    if data >> target.data_bits != 0:
        raise LabelError("slot_too_wide")
    return _with_first(label, first.width, target.director(data), target.width, bits)


def canonical(scheme, label, bits=64):
    """The first director in its narrowest form (W1.4-13)."""
    first = scheme.decode(label)
    director, width = scheme.encode_narrowest(first.slot)
    return _with_first(label, first.width, director, width, bits)


def widen_for_ingress(scheme, label, ingress, bits=64):
    """The first director wide enough for the ingress slot in its place (W1.4-14)."""
    first = scheme.decode(label)
    try:
        scheme.encode(ingress, first.width)
        return label
    except LabelError as error:
        if error.name == "no_self":
            raise
    director, width = scheme.encode_narrowest(first.slot, ingress)
    return _with_first(label, first.width, director, width, bits)


def widen_for_asker(scheme, label, asker, bits=64):
    """The first director as wide as that of `asker` (W1.4-15)."""
    first, other = scheme.decode(label), scheme.decode(asker)
    if other.width <= first.width:
        return label
    director = scheme.encode(first.slot, other.width)
    return _with_first(label, first.width, director, other.width, bits)


def build(hops, bits=64):
    """Label and return label of a path of (scheme, out slot, in slot) (W1.4-6)."""
    if not hops:
        raise LabelError("no_hops")
    last = len(hops) - 1
    label = width_sum = 0
    back = 1
    for index, (scheme, out, into) in enumerate(hops):
        if (out == SELF_SLOT and index != last) or (into == SELF_SLOT and index != 0):
            raise LabelError("switch_inside")
        director, width = scheme.encode_narrowest(out, into)
        if out == SELF_SLOT:
            _, width = scheme.encode_narrowest(into)  # the packet ends here (W1.3-4)
        label |= director << width_sum
        width_sum += width
        ingress = scheme.encode(into, width)
        if index == 0 and into == SELF_SLOT:
            back = ingress  # the director of slot 1 is the end marker, too
        else:
            back = back << width | ingress
        _bounded(label if out == SELF_SLOT else label | 1 << width_sum, bits)
        _bounded(back, bits)
    if hops[last][1] != SELF_SLOT:
        label |= 1 << width_sum
    return label, back


# Text (W1.4-8, W1.4-16, W1.4-17)


def to_text(label, bits=64):
    """All hex digits in groups of four."""
    digits = format(label, f"0{bits // 4}x")
    return ".".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def from_text(text, bits=64):
    """Reads a label; raises `LabelError` with the position of the first wrong byte."""
    if not text:
        raise LabelError("label_empty", 0)
    group, digits, first_group = 0, "", True
    for position, character in enumerate(text):
        if character == ".":
            if group == 0 or group > 4 or (group < 4 and not first_group):
                raise LabelError("label_dot", position)
            first_group, group = False, 0
        elif character in "0123456789abcdefABCDEF":
            if not first_group and group == 4:
                raise LabelError("label_dot", position)
            group += 1
            digits += character
            if len(digits) > bits // 4:
                raise LabelError("label_too_long", position)
        else:
            raise LabelError("label_not_hex", position)
    if not first_group and group != 4:
        raise LabelError("label_dot", len(text))
    return int(digits, 16)
