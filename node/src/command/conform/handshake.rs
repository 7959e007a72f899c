//! Operations on the hello and the two handshakes (wire.md 4).

use serde_json::{Map, Value, json};
use strowger_crypto::{
    LocalIdentity, Psk, SealMode, Secret,
    handshake::{
        Admission, Admitted, Agreement, Cookie, CookieChecker, Disagreement, Established,
        FieldBytes, HandshakeError, Load, LocalParams, Offer, ProtocolBytes, Refused, SchemeBytes,
        TimestampGuard, ik, xx,
    },
    vectors,
};
use strowger_wire::{
    Scheme,
    hello::{Hello, HelloMalformed, Lanes, Mtu, SealWish, Suites, Timestamp, Versions, Widths},
    hex::Hex,
    limits::INITIATION_BYTES,
    link_header::{LinkHeader, SessionIndex},
};

use super::{
    Fault, Kind,
    keys::{Given, checker, identity_refused, node},
    request::Request,
};

/// The reply to an operation on handshakes; `None` for other operations.
pub(super) fn answer(op: &str, request: Request<'_>) -> Option<Result<Value, Fault>> {
    Some(match op {
        "hello" => hello(request),
        "hello_read" => hello_read(request),
        "agree" => agree(request),
        "ik" => run_ik(request),
        "xx" => run_xx(request),
        _ => return None,
    })
}

/// The offer of a request. Absent fields have the values of the default offer.
fn offer(request: Request<'_>) -> Result<Offer, Fault> {
    let least = Offer::default();
    let oldest = request.byte_or("oldest", least.versions.oldest())?;
    let newest = request.byte_or("newest", least.versions.newest())?;
    let seal = request.byte_or("seal", least.seal as u8)?;
    let mtu = request.number_or("mtu", least.mtu.bytes().into(), u16::MAX.into())?;
    let scheme = match request.get("scheme").map(Value::as_str) {
        None => Vec::new(),
        Some(None) => return Err(request.bad("scheme")),
        Some(Some(name)) => match Scheme::named(name) {
            Some(scheme) => scheme.serialize().as_bytes().to_vec(),
            None => request.bytes("scheme")?,
        },
    };
    Ok(Offer {
        versions: Versions::new(oldest, newest).ok_or_else(|| request.bad("newest"))?,
        suites: Suites::from_bits(request.byte_or("suites", least.suites.bits())?),
        seal: SealWish::from_number(seal).ok_or_else(|| request.bad("seal"))?,
        widths: Widths::from_bits(request.byte_or("widths", least.widths.bits())?),
        same_scheme: request.number_or("flags", 0, 1)? == 1,
        lanes: Lanes::new(request.byte_or("lanes", least.lanes.number())?)
            .ok_or_else(|| request.bad("lanes"))?,
        mtu: Mtu::new(mtu as u16).ok_or_else(|| request.bad("mtu"))?,
        scheme: SchemeBytes::new(&scheme).map_err(|_| request.bad("scheme"))?,
        protocols: ProtocolBytes::new(&request.bytes_or_none("protocols")?)
            .map_err(|_| request.bad("protocols"))?,
        fields: FieldBytes::new(&request.bytes_or_none("fields")?)
            .map_err(|_| request.bad("fields"))?,
    })
}

fn timestamp(request: Request<'_>) -> Result<Timestamp, Fault> {
    request.number_or("timestamp", 0, u64::MAX).map(Timestamp)
}

fn hello(request: Request<'_>) -> Result<Value, Fault> {
    let (offer, proof) = (offer(request)?, request.array("proof")?);
    let hello = Hello {
        versions: offer.versions,
        suites: offer.suites,
        seal: offer.seal,
        widths: offer.widths,
        same_scheme: offer.same_scheme,
        lanes: offer.lanes,
        mtu: offer.mtu,
        index: request.index()?,
        timestamp: timestamp(request)?,
        proof: &proof,
        scheme: offer.scheme.as_bytes(),
        protocols: offer.protocols.as_bytes(),
        later: offer.fields.as_bytes(),
    };
    let padded = request.number_or("bytes", 0, INITIATION_BYTES as u64)? as usize;
    let mut bytes = vec![0; hello.wire_bytes().max(padded)];
    hello.emit(&mut bytes).map_err(|_| "bad_field")?;
    Ok(json!({ "hello": Hex(&bytes).to_string() }))
}

fn hello_read(request: Request<'_>) -> Result<Value, Fault> {
    let bytes = request.bytes("hello")?;
    let hello = Hello::parse(&bytes).map_err(hello_malformed)?;
    Ok(json!({
        "index": hello.index.number(),
        "proof": Hex(hello.proof).to_string(),
        "timestamp": hello.timestamp.0,
        "oldest": hello.versions.oldest(),
        "newest": hello.versions.newest(),
        "suites": hello.suites.bits(),
        "seal": hello.seal as u8,
        "widths": hello.widths.bits(),
        "flags": u8::from(hello.same_scheme),
        "lanes": hello.lanes.number(),
        "mtu": hello.mtu.bytes(),
        "scheme": Hex(hello.scheme).to_string(),
        "protocols": Hex(hello.protocols).to_string(),
        "fields": Hex(hello.later).to_string(),
    }))
}

/// The offer in a hello.
fn offer_of(bytes: &[u8]) -> Result<Offer, Fault> {
    let hello = Hello::parse(bytes).map_err(hello_malformed)?;
    Ok(Offer {
        versions: hello.versions,
        suites: hello.suites,
        seal: hello.seal,
        widths: hello.widths,
        same_scheme: hello.same_scheme,
        lanes: hello.lanes,
        mtu: hello.mtu,
        scheme: SchemeBytes::new(hello.scheme).map_err(|_| "bad_field")?,
        protocols: ProtocolBytes::new(hello.protocols).map_err(|_| "bad_field")?,
        fields: FieldBytes::default(),
    })
}

fn agree(request: Request<'_>) -> Result<Value, Fault> {
    let (one, other) = (offer_of(&request.bytes("hello")?)?, offer_of(&request.bytes("other")?)?);
    Ok(agreement(&one.agree(&other).map_err(disagreement)?))
}

fn agreement(agreement: &Agreement) -> Value {
    json!({
        "version": agreement.version,
        "suite": agreement.suite.bits(),
        "seal": match agreement.seal {
            SealMode::Full => "full",
            SealMode::HeaderOnly => "header_only",
        },
        "widths": agreement.widths.bits(),
        "mtu": agreement.mtu.bytes(),
    })
}

/// One end of a handshake.
struct End {
    local: LocalIdentity,
    offer: Offer,
    index: SessionIndex,
    timestamp: Timestamp,
}

impl End {
    fn read(end: Request<'_>, request: Request<'_>) -> Result<End, Fault> {
        // An end with a secret needs no index: the index is computed from the secret. Only a
        // responder of XX has a secret (docs/conform.md), which is not checked here.
        let has_index = end.has("index") || !end.has("secret");
        let index = if has_index { end.index()? } else { SessionIndex::NONE };
        let (local, offer) = (node(end, request)?, offer(end)?);
        Ok(End { local, offer, index, timestamp: timestamp(end)? })
    }

    fn params(&self) -> LocalParams<'_> {
        let End { local, offer, index, timestamp } = self;
        LocalParams { local, offer, index: *index, timestamp: *timestamp }
    }
}

fn cookie(request: Request<'_>) -> Result<Option<Cookie>, Fault> {
    let has_cookie = request.has("cookie");
    has_cookie.then(|| request.array("cookie").map(vectors::cookie)).transpose()
}

/// Checks the MACs of a message like a receiver that is not under load.
fn admit<'m>(
    checker: &CookieChecker,
    source: &[u8],
    message: &'m [u8],
) -> Result<Admitted<'m>, Fault> {
    match checker.admit(source, message, Load::Normal).map_err(refused)? {
        Admission::Admitted(admitted) => Ok(admitted),
        Admission::CookieReply(_) => Err("cookie_wanted".into()),
    }
}

fn run_ik(request: Request<'_>) -> Result<Value, Fault> {
    let (initiator, responder) = (request.object("initiator")?, request.object("responder")?);
    let (a, b) = (End::read(initiator, request)?, End::read(responder, request)?);
    let psk = match request.has("psk") {
        true => Psk::from_bytes(request.array("psk")?),
        false => Psk::NONE,
    };
    let (to, cookie) = (b.local.static_public(), cookie(request)?);
    let mut ephemeral = Given::new([initiator.array("ephemeral")?]);
    let begun = ik::initiate(&a.params(), to, &psk, cookie.as_ref(), &mut ephemeral);
    let (state, initiation) = begun.map_err(failed)?;
    let checker = checker(&b.local, [0; 32])?;
    let read = ik::read(&b.local, &admit(&checker, &[], &initiation)?).map_err(refused)?;
    let mut ephemeral = Given::new([responder.array("ephemeral")?]);
    let mut guard = TimestampGuard::default();
    let accepted = read.accept(&b.params(), &psk, &mut guard, &mut ephemeral);
    let (_, response) = accepted.map_err(failed)?;
    let session = state.read_response(&response).map_err(|rejected| refused(rejected.why))?;
    Ok(with_session(&session, [("initiation", initiation.as_slice()), ("response", &response)]))
}

fn run_xx(request: Request<'_>) -> Result<Value, Fault> {
    let (initiator, responder) = (request.object("initiator")?, request.object("responder")?);
    let (a, b) = (End::read(initiator, request)?, End::read(responder, request)?);
    let cookie = cookie(request)?;
    let mut ephemeral = Given::new([initiator.array("ephemeral")?]);
    let begun = if request.flag("by_peer_id")? {
        let to = b.local.identity();
        xx::initiate_by_peer_id(&a.params(), to, cookie.as_ref(), &mut ephemeral)
    } else {
        xx::initiate(&a.params(), cookie.as_ref(), &mut ephemeral)
    };
    let (state, first) = begun.map_err(failed)?;
    // The responder derives its ephemeral key and its index from a secret, or the request contains
    // both.
    let secret = match responder.has("secret") {
        true => Some((responder.array("secret")?, responder.bytes_or_none("source")?)),
        false => None,
    };
    let (secret, source) = secret.as_ref().map_or(([0; 32], &[][..]), |(s, at)| (*s, at));
    let mut checker = checker(&b.local, secret)?;
    let admitted = admit(&checker, source, &first)?;
    let derives = responder.has("secret");
    let second = if derives {
        xx::answer(&checker, &b.local, &b.offer, source, &admitted)
    } else {
        vectors::xx_answer(&b.params(), ephemeral_of(responder)?, &admitted)
    };
    let second = second.map_err(refused)?;
    let read = state.read_response(&a.local, &second).map_err(|rejected| refused(rejected.why))?;
    let (session, third) = read.finish(&a.params(), cookie.as_ref()).map_err(refused)?;
    let admitted = admit(&checker, source, &third)?;
    let of_b = if derives {
        xx::read_finish(&checker, &b.local, &b.offer, source, &admitted)
            .and_then(|finish| finish.accept(&mut checker, &mut TimestampGuard::default()))
    } else {
        vectors::xx_establish(&b.params(), ephemeral_of(responder)?, &admitted)
    };
    if of_b.map_err(refused)?.transcript() != session.transcript() {
        return Err("transcripts_differ".into());
    }
    let index = LinkHeader::parse(&second).map_err(|_| "malformed")?.low;
    let messages = [("first", first.as_slice()), ("second", &second), ("third", &third)];
    let mut answer = with_session(&session, messages);
    answer["responder_index"] = json!(index);
    Ok(answer)
}

fn ephemeral_of(responder: Request<'_>) -> Result<Secret, Fault> {
    responder.secret("ephemeral")
}

/// The messages of a handshake, and the session that both ends have after it.
fn with_session<const N: usize>(session: &Established, messages: [(&str, &[u8]); N]) -> Value {
    let mut answer = Map::new();
    for (name, message) in messages {
        answer.insert(name.to_owned(), json!(Hex(message).to_string()));
    }
    let [out, back] = vectors::direction_keys(session);
    answer.insert("transcript".to_owned(), json!(Hex(session.transcript()).to_string()));
    answer.insert("keys".to_owned(), json!([Hex(out).to_string(), Hex(back).to_string()]));
    answer.insert("agreement".to_owned(), agreement(session.agreement()));
    Value::Object(answer)
}

fn failed(why: HandshakeError) -> Kind {
    match why {
        HandshakeError::Peer(why) => refused(why),
        HandshakeError::Local(_) => "bad_field",
    }
}

pub(super) fn refused(why: Refused) -> Kind {
    match why {
        Refused::Malformed => "malformed",
        Refused::NotOurs => "not_ours",
        Refused::WrongMac => "wrong_mac",
        Refused::OtherNetwork => "other_network",
        Refused::Unreadable => "unreadable",
        Refused::Hello(why) => hello_malformed(why),
        Refused::OtherIndex => "other_index",
        Refused::Stale => "stale",
        Refused::Identity(why) => identity_refused(why),
        Refused::OtherIdentity(_) => "other_identity",
        Refused::OtherPeer => "other_peer",
        Refused::Disagreement(why) => disagreement(why),
        Refused::Ourselves => "ourselves",
        Refused::Busy | Refused::XxMemoryFull => "busy",
        Refused::OwnHelloTooLong => "own_hello_too_long",
    }
}

fn hello_malformed(why: HelloMalformed) -> Kind {
    match why {
        HelloMalformed::Cut => "hello_cut",
        HelloMalformed::BadField => "hello_bad_field",
        HelloMalformed::BadPadding => "hello_bad_padding",
    }
}

fn disagreement(why: Disagreement) -> Kind {
    match why {
        Disagreement::Version => "no_common_version",
        Disagreement::Suite => "no_common_suite",
        Disagreement::SealMode => "no_common_seal_mode",
        Disagreement::Width => "no_common_width",
        Disagreement::Scheme => "schemes_differ",
    }
}
