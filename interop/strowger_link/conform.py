"""Answers requests of label arithmetic like `strowger conform` (wire.md 1.4)."""

from . import label as labels
from .label import LabelError, Scheme

# `step` has its own names for three reasons of W1.2-4.
_STEP_NAMES = {
    "label_spent": "spent_label",
    "no_director": "no_such_director",
    "label_full": "register_full",
}


def answer(request):
    """The reply to one request, both as objects."""
    try:
        return _OPERATIONS[request["op"]](request)
    except LabelError as error:
        reply = {"error": error.name}
        return {**reply, "forms": [], "sane": False} if request["op"] == "scheme" else reply


def _scheme(name):
    return labels.SCHEMES[name] if name in labels.SCHEMES else Scheme.read(bytes.fromhex(name))


def _bits(request):
    return request.get("bits", 64)


def _hex(value, bits=64):
    return format(value, f"0{bits // 4}x")


def _encode(request):
    scheme = _scheme(request["scheme"])
    if "width" in request:
        return {"director": _hex(scheme.encode(request["slot"], request["width"]))}
    director, width = scheme.encode_narrowest(request["slot"])
    return {"director": _hex(director), "width": width}


def _decode(request):
    scheme, label = _scheme(request["scheme"]), int(request["label"], 16)
    director = scheme.decode(label)
    return {
        "form": director.form,
        "one_hop": labels.is_one_hop(scheme, label),
        "self": director.slot == labels.SELF_SLOT,
        "slot": director.slot,
        "width": director.width,
    }


def _label_reply(label, request):
    return {"label": _hex(label, _bits(request))}


def _splice(request):
    onward, first = int(request["onward"], 16), int(request["first"], 16)
    return _label_reply(labels.splice(onward, first, _bits(request)), request)


def _unsplice(request):
    return _label_reply(labels.unsplice(int(request["full"], 16), int(request["first"], 16)), request)


def _routes_through(request):
    result = labels.routes_through(int(request["label"], 16), int(request["via"], 16))
    return {"result": result}


def _hop_count(request):
    return {"hops": labels.hop_count(_scheme(request["scheme"]), int(request["label"], 16))}


def _convert(request):
    scheme, label, bits = _scheme(request["scheme"]), int(request["label"], 16), _bits(request)
    if request["form"] == "canonical":
        return _label_reply(labels.canonical(scheme, label, bits), request)
    return _label_reply(labels.convert(scheme, label, request["form"], bits), request)


def _widen(request):
    scheme, label, bits = _scheme(request["scheme"]), int(request["label"], 16), _bits(request)
    if "asker" in request:
        asker = int(request["asker"], 16)
        return _label_reply(labels.widen_for_asker(scheme, label, asker, bits), request)
    return _label_reply(labels.widen_for_ingress(scheme, label, request["ingress"], bits), request)


def _step(request):
    scheme, bits, ingress = _scheme(request["scheme"]), _bits(request), request["from"]
    label, shift = int(request["label"], 16), request["shift"]
    try:
        done = labels.step(scheme, label, shift, ingress, bits, taken=request["taken"])
    except LabelError as error:
        raise LabelError(_STEP_NAMES.get(error.name, error.name)) from None
    if done.out == labels.SELF_SLOT:
        # A switch does not rewrite this packet. The reply has what the return label comes from:
        # the ingress slot in the fewest bits that hold it and slot 1, or in those of the director
        # below an end marker.
        try:
            width = done.width
            if label & ((1 << (bits - shift)) - 1) == 1:
                _, width = scheme.encode_narrowest(ingress, labels.SELF_SLOT)
            label, shift = labels.rewrite(scheme, label, shift, ingress, width, bits)
        except LabelError:
            return {"to": done.out}
        return {**_label_reply(label, request), "shift": shift, "to": done.out}
    return {**_label_reply(done.label, request), "shift": done.shift, "to": done.out}


def _reverse(request):
    scheme = _scheme(request["scheme"]) if "ingress" in request else None
    label = labels.reverse(
        int(request["label"], 16),
        request["shift"],
        _bits(request),
        scheme,
        request.get("ingress"),
    )
    return _label_reply(label, request)


def _build(request):
    hops = [(_scheme(hop["scheme"]), hop["out"], hop["in"]) for hop in request["hops"]]
    if request["per"] == "link" and hops:
        # From the first switch to the last end: each link's far slot belongs to the next switch.
        slots_in = [labels.SELF_SLOT, *(into for _, _, into in hops)]
        schemes = [scheme for scheme, _, _ in hops]
        slots_out = [*(out for _, out, _ in hops), labels.SELF_SLOT]
        hops = list(zip([*schemes, schemes[-1]], slots_out, slots_in, strict=True))
    label, back = labels.build(hops, _bits(request))
    return {"back": _hex(back, _bits(request)), "label": _hex(label, _bits(request))}


def _describe(request):
    scheme = _scheme(request["serialized"] if "serialized" in request else request["scheme"])
    forms = [
        {"bitCount": form.data_bits, "prefix": format(form.prefix, "x"), "prefixLen": form.prefix_bits}
        for form in scheme.forms
    ]
    reply = {"forms": forms, "sane": True}
    if "serialized" not in request:
        reply["serialized"] = scheme.serialise().hex()
    return reply


_OPERATIONS = {
    "encode": _encode,
    "decode": _decode,
    "splice": _splice,
    "unsplice": _unsplice,
    "routes_through": _routes_through,
    "hop_count": _hop_count,
    "convert": _convert,
    "widen": _widen,
    "step": _step,
    "reverse": _reverse,
    "build": _build,
    "scheme": _describe,
}
