//! Operations on keys, identities, MACs, cookies and beacons (wire.md 4 and 10).

use serde_json::{Value, json};
use strowger_crypto::{
    Certificate, CertificateRefused, Domain, Entropy, EntropyFailed, IdentityKey, IdentityRefused,
    LocalIdentity, Nanos, PeerId, StaticKey, StaticPublic,
    beacon::{self, BeaconRefused, UnverifiedBeacon},
    handshake::{Admission, CookieChecker, Load},
    vectors,
};
use strowger_wire::{
    certificate::{CertificateError, KeyRole},
    hex::Hex,
    link_header::{LinkHeader, SessionIndex, Step},
};

use super::{Fault, Kind, handshake::refused, request::Request};

/// The reply to an operation on keys; `None` for other operations.
pub(super) fn answer(op: &str, request: Request<'_>) -> Option<Result<Value, Fault>> {
    Some(match op {
        "mac" => mac(request),
        "identity" => identity(request),
        "peer_id" => peer_id(request),
        "proof_read" => proof_read(request),
        "mac1" => mac1(request),
        "mac2" => mac2(request),
        "key_hint" => key_hint(request),
        "cookie_reply" => cookie_reply(request),
        "cookie_reply_read" => cookie_reply_read(request),
        "certificate" => certificate(request),
        "certificate_read" => certificate_read(request),
        "beacon" => beacon(request),
        "beacon_read" => beacon_read(request),
        _ => return None,
    })
}

/// Random bytes that the request contains. Each draw returns the next 32 bytes.
pub(super) struct Given<const N: usize>(pub(super) [[u8; 32]; N], pub(super) usize);

impl<const N: usize> Given<N> {
    pub(super) fn new(draws: [[u8; 32]; N]) -> Self {
        Self(draws, 0)
    }
}

impl<const N: usize> Entropy for Given<N> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        let next = self.0.get(self.1).filter(|next| next.len() == bytes.len());
        bytes.copy_from_slice(next.ok_or(EntropyFailed)?);
        self.1 += 1;
        Ok(())
    }
}

/// The node with the identity of `seed`. Its static key is `static_private`, or else is derived
/// from the seed.
pub(super) fn node(request: Request<'_>, network: Request<'_>) -> Result<LocalIdentity, Fault> {
    let key = IdentityKey::from_seed(&request.secret("seed")?);
    let (domain, network) = (network.domain()?, network.network()?);
    let static_key = if request.has("static_private") {
        StaticKey::from_secret(&request.secret("static_private")?)
    } else {
        match domain {
            Domain::Link => key.static_key(),
            Domain::Connection => key.connection_key(),
        }
    };
    Ok(vectors::local_identity(domain, &key, static_key, network))
}

fn mac(request: Request<'_>) -> Result<Value, Fault> {
    let (key, label) = (request.bytes("key")?, request.text("label")?);
    let mut parts = Vec::new();
    for part in request.list("parts")? {
        let part = part.as_str().ok_or_else(|| request.bad("parts"))?;
        parts.push(request.hex_of("parts", part)?);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mac = vectors::mac(&key, label, &parts).ok_or("bad_key")?;
    Ok(json!({ "mac": Hex(&mac).to_string() }))
}

fn identity(request: Request<'_>) -> Result<Value, Fault> {
    let local = node(request, request)?;
    let key = IdentityKey::from_seed(&request.secret("seed")?);
    let proof = key.prove_in(local.domain(), local.static_public());
    Ok(json!({
        "identity": Hex(&local.identity().to_bytes()).to_string(),
        "peer_id": local.identity().peer_id().to_string(),
        "static_private": Hex(vectors::static_private(local.static_key())).to_string(),
        "static": local.static_public().to_string(),
        "proof": Hex(vectors::proof_bytes(&proof)).to_string(),
    }))
}

fn peer_id(request: Request<'_>) -> Result<Value, Fault> {
    let identity = if request.has("peer_id") {
        let peer_id: PeerId = request.text("peer_id")?.parse().map_err(|_| "bad_peer_id")?;
        peer_id.identity().map_err(identity_refused)?
    } else {
        let bytes = request.array("identity")?;
        strowger_crypto::Identity::from_bytes(&bytes).map_err(identity_refused)?
    };
    Ok(json!({
        "identity": Hex(&identity.to_bytes()).to_string(),
        "peer_id": identity.peer_id().to_string(),
        "bytes": Hex(identity.peer_id().as_bytes()).to_string(),
    }))
}

fn proof_read(request: Request<'_>) -> Result<Value, Fault> {
    let proof = vectors::proof(request.array("proof")?);
    let static_key = StaticPublic(request.array("static")?);
    let identity = proof.verify_in(request.domain()?, &static_key).map_err(identity_refused)?;
    Ok(json!({
        "identity": Hex(&identity.to_bytes()).to_string(),
        "peer_id": identity.peer_id().to_string(),
    }))
}

fn mac1(request: Request<'_>) -> Result<Value, Fault> {
    let message = request.bytes("message")?;
    let receiver = request.array("receiver")?;
    let mac1 = vectors::mac1(request.domain()?, &receiver, &request.network()?, &message);
    Ok(json!({ "mac1": Hex(&mac1).to_string() }))
}

fn mac2(request: Request<'_>) -> Result<Value, Fault> {
    let cookie = vectors::cookie(request.array("cookie")?);
    let mac2 = vectors::mac2(&cookie, &request.bytes("message")?);
    Ok(json!({ "mac2": Hex(&mac2).to_string() }))
}

fn key_hint(request: Request<'_>) -> Result<Value, Fault> {
    let ephemeral = request.array("ephemeral_public")?;
    let hint = vectors::key_hint(request.domain()?, &request.array("receiver")?, &ephemeral);
    Ok(json!({ "hint": format!("{:06x}", hint.number()) }))
}

/// A cookie checker of a node, with this current secret. The lowest bit of its epoch is 1. It
/// accepts XX by label alone.
pub(super) fn checker(local: &LocalIdentity, secret: [u8; 32]) -> Result<CookieChecker, Fault> {
    let mut draws = Given::new([secret, [0; 32]]);
    let mut checker =
        CookieChecker::new(local, Nanos::ZERO, &mut draws).map_err(|_| "bad_field")?;
    checker.accept_without_peer_id(local);
    Ok(checker)
}

fn cookie_reply(request: Request<'_>) -> Result<Value, Fault> {
    let local = node(request, request)?;
    let checker = checker(&local, request.array("secret")?)?;
    let (source, message) = (request.bytes("source")?, request.bytes("message")?);
    match checker.admit(&source, &message, Load::Heavy).map_err(refused)? {
        Admission::CookieReply(reply) => Ok(json!({ "reply": Hex(&reply).to_string() })),
        Admission::Admitted(_) => Err("has_cookie".into()),
    }
}

fn cookie_reply_read(request: Request<'_>) -> Result<Value, Fault> {
    let message = request.bytes("message")?;
    let header = LinkHeader::parse(&message).map_err(|_| "malformed")?;
    let step = Step::from_lane(header.lane).ok_or("malformed")?;
    let index = SessionIndex::new(header.low).ok_or("malformed")?;
    let (with_mac1, _) = message.split_last_chunk::<16>().ok_or("malformed")?;
    let mac1 = with_mac1.last_chunk().ok_or("malformed")?;
    let (receiver, network) = (request.array("receiver")?, request.network()?);
    let to = (request.domain()?, &receiver);
    let reply = request.bytes("reply")?;
    let cookie = vectors::read_cookie(to, &network, (step, index), mac1, &reply);
    Ok(json!({ "cookie": Hex(&cookie.map_err(refused)?).to_string() }))
}

fn role(request: Request<'_>) -> Result<KeyRole, Fault> {
    KeyRole::from_number(request.byte("role")?).ok_or_else(|| "bad_role".into())
}

fn certificate(request: Request<'_>) -> Result<Value, Fault> {
    let key = IdentityKey::from_seed(&request.secret("seed")?);
    let (certified, stamp) = (request.array("key")?, request.number("stamp")?);
    let made = key.certify(role(request)?, &certified, stamp, &request.network()?);
    Ok(json!({ "certificate": Hex(made.as_bytes()).to_string() }))
}

fn certificate_read(request: Request<'_>) -> Result<Value, Fault> {
    let bytes = request.bytes("certificate")?;
    let read = Certificate::verify(&bytes, role(request)?, &request.network()?);
    let read = read.map_err(|why| match why {
        CertificateRefused::Malformed(CertificateError::Length) => "malformed",
        CertificateRefused::Malformed(CertificateError::Role) => "bad_role",
        CertificateRefused::OtherRole(_) => "other_role",
        CertificateRefused::Identity(why) => identity_refused(why),
    })?;
    Ok(json!({
        "identity": Hex(&read.identity().to_bytes()).to_string(),
        "peer_id": read.identity().peer_id().to_string(),
        "key": Hex(read.key()).to_string(),
        "stamp": read.stamp(),
    }))
}

fn beacon(request: Request<'_>) -> Result<Value, Fault> {
    let local = node(request, request)?;
    Ok(json!({ "beacon": Hex(&beacon::encode(&local)).to_string() }))
}

fn beacon_read(request: Request<'_>) -> Result<Value, Fault> {
    let (bytes, network) = (request.bytes("beacon")?, request.network()?);
    let beacon = UnverifiedBeacon::parse(&bytes).map_err(beacon_refused)?;
    if !beacon.is_for_network(&network) {
        return Err("wrong_mac".into());
    }
    let identity = beacon.verify(&network).map_err(beacon_refused)?;
    Ok(json!({
        "static": beacon.static_key().to_string(),
        "identity": Hex(&identity.to_bytes()).to_string(),
        "peer_id": identity.peer_id().to_string(),
    }))
}

fn beacon_refused(why: BeaconRefused) -> Kind {
    match why {
        BeaconRefused::Malformed => "malformed",
        BeaconRefused::UnknownVersion => "unknown_version",
        BeaconRefused::Identity(why) => identity_refused(why),
    }
}

pub(super) fn identity_refused(why: IdentityRefused) -> Kind {
    match why {
        IdentityRefused::Malformed => "bad_proof",
        IdentityRefused::NotEd25519 => "not_ed25519",
        IdentityRefused::BadKey => "bad_key",
        IdentityRefused::BadSignature => "bad_signature",
    }
}
