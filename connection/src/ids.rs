//! The handles that an endpoint returns.

/// Declares a handle: a place in a table, and the number of earlier uses of that place.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            place: u32,
            turn: u32,
        }

        impl $name {
            pub(crate) const fn new(place: u32, turn: u32) -> $name {
                $name { place, turn }
            }

            #[inline]
            pub(crate) const fn turn(self) -> u32 {
                self.turn
            }

            /// A small number, unique among open handles of this kind, for the caller's tables. A
            /// later handle may have the same number.
            #[inline]
            pub const fn index(self) -> usize {
                self.place as usize
            }
        }
    };
}

handle! {
    /// A socket: one protocol of one connection.
    SocketId
}
handle! {
    /// A listener: protocols that this endpoint accepts.
    ListenerId
}
handle! {
    /// A datagram socket: one protocol of all connections.
    DatagramId
}

/// A ping, as [`Endpoint::ping`](crate::Endpoint::ping) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub(crate) u64);
