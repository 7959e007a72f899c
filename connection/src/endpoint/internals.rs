//! What fuzzers and benchmarks need besides the public interface.

use strowger_crypto::{Nanos, PeerId, Sealed};

use super::Endpoint;
use crate::error::NoConnection;
use crate::packet::PacketMark;

impl Endpoint {
    /// Seals any body for a peer, and queues the packet along the active path, as a peer with keys
    /// that violates the rules may do.
    ///
    /// # Errors
    /// [`NoConnection`], also if there are no keys or no path.
    pub fn send_sealed(
        &mut self,
        now: Nanos,
        peer: &PeerId,
        what: Sealed,
        body: &[u8],
    ) -> Result<(), NoConnection> {
        self.with_connection(now, peer, |connection, shared| {
            let Some(along) = connection.paths.active().copied() else { return false };
            let mark = PacketMark::flow(1);
            connection.seal_along(now, what, &along, mark, body, shared)
        })
    }
}
