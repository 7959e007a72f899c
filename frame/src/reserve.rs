//! Reservations in a pool: each port has a floor, which is a number of chunks that no other user
//! can take.
//!
//! Chunks beyond all floors are shared. This module counts chunks and never touches their memory.
//!
//! The scheme is that of shared packet buffers in switches: each port has a reserved minimum, and
//! the rest is shared. A chunk is charged to a user until it is back in the pool, even if another
//! thread holds it.

/// The number of chunks of a class that no floor may include. It is one burst, so that a pool that
/// is too small for all floors still has chunks for users without a floor.
const SHARED_MIN: u32 = crate::BURST_MAX as u32;

/// The number of users of one pool: `COMMON`, `WAITING`, and one per port number below 1,024.
const USERS_MAX: usize = 2 + 1024;

/// A user of a pool. Each chunk that is not free is charged to one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUser(u16);

impl PoolUser {
    /// The common user, which has no floor.
    pub const COMMON: Self = Self(0);
    /// Frames that wait for a blocked egress. The floor of this user is also its limit.
    pub const WAITING: Self = Self(1);

    /// The port with this number. Ports with numbers from 1,024 on share [`COMMON`](Self::COMMON).
    pub const fn port(number: u16) -> Self {
        let user = number as usize + 2;
        if user < USERS_MAX { Self(user as u16) } else { Self::COMMON }
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A number of chunks of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Chunks of [`ChunkClass::Train`](crate::ChunkClass::Train).
    pub trains: u32,
    /// Chunks of [`ChunkClass::Single`](crate::ChunkClass::Single).
    pub singles: u32,
}

/// The part of the chunks for waiting frames that one egress queue may use; see [`Pool::park`].
///
/// A queue gets at most half of the chunks that other queues leave, rounded up. Beyond the number
/// of frames that it sent recently, it also leaves some chunks free for queues that drain.
///
/// [`Pool::park`]: crate::Pool::park
#[derive(Debug)]
pub struct QueueShare {
    /// The number of frames that the egress sent recently. As many waiting frames are expected to
    /// be sent soon.
    drains: usize,
    /// The number of chunks of each class that stay free for queues that drain. At most half of the
    /// chunks for waiting frames stay free in this way.
    spared: u32,
    /// The number of parked frames of the queue.
    pub(crate) held: usize,
    /// The number of parked frames that the queue must drop. Their chunks will soon be free.
    pub(crate) dropped: usize,
}

impl QueueShare {
    /// Makes the share of a queue that sent `drains` frames recently.
    ///
    /// `spared` chunks of each class stay free for queues that drain, but at most half of the
    /// chunks for waiting frames.
    pub fn new(drains: usize, spared: u32) -> Self {
        Self { drains, spared, held: 0, dropped: 0 }
    }

    /// The number of chunks of a class that must stay free after the queue's next frame.
    pub(crate) fn leaves(&self, reserve: &Reserve) -> usize {
        let half = reserve.floor(PoolUser::WAITING) / 2;
        if self.held < self.drains { 0 } else { self.spared.min(half) as usize }
    }
}

/// One user's account of one class of chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    floor: u32,
    taken: u32,
}

impl Share {
    fn unused(self) -> u32 {
        self.floor.saturating_sub(self.taken)
    }
}

/// The accounts of one class of chunks.
pub(crate) struct Reserve {
    total: u32,
    shares: Box<[Share]>,
    /// The number of reserved free chunks: the sum of the unused parts of all floors.
    kept: u32,
    floors: u32,
    is_low: bool,
}

impl Reserve {
    pub(crate) fn new(total: u32) -> Self {
        let shares = vec![Share::default(); USERS_MAX].into_boxed_slice();
        Self { total, shares, kept: 0, floors: 0, is_low: false }
    }

    /// Sets a user's floor and returns it. The result is below `floor` if the pool is too small.
    pub(crate) fn set_floor(&mut self, user: PoolUser, floor: u32) -> u32 {
        let share = &mut self.shares[user.index()];
        let others = self.floors - share.floor;
        let unused = share.unused();
        share.floor = floor.min(self.total.saturating_sub(SHARED_MIN + others));
        self.floors = others + share.floor;
        self.kept = self.kept - unused + share.unused();
        share.floor
    }

    /// Whether this user may take one of `free` chunks.
    #[inline]
    pub(crate) fn admits(&self, user: PoolUser, free: usize) -> bool {
        let share = self.shares[user.index()];
        let within_floor = share.taken < share.floor;
        if user == PoolUser::WAITING {
            return within_floor && free > 0;
        }
        free > if within_floor { 0 } else { self.kept as usize }
    }

    #[inline]
    pub(crate) fn take(&mut self, user: PoolUser) {
        let share = &mut self.shares[user.index()];
        self.kept -= u32::from(share.taken < share.floor);
        share.taken += 1;
    }

    #[inline]
    pub(crate) fn give_back(&mut self, user: PoolUser) {
        let share = &mut self.shares[user.index()];
        share.taken -= 1;
        self.kept += u32::from(share.taken < share.floor);
    }

    /// The number of chunks that this user may still take within its floor.
    pub(crate) fn unused(&self, user: PoolUser) -> u32 {
        self.shares[user.index()].unused()
    }

    fn floor(&self, user: PoolUser) -> u32 {
        self.shares[user.index()].floor
    }

    /// Updates whether free chunks run low, and returns the result.
    ///
    /// This state begins when at most an eighth of the unreserved chunks is left, and ends when
    /// more than a quarter is left.
    #[inline]
    pub(crate) fn update_low(&mut self, free: usize) -> bool {
        let left = free.saturating_sub(self.kept as usize);
        let bound = (self.total - self.floors) as usize / if self.is_low { 4 } else { 8 };
        self.is_low = self.total > 0 && left <= bound;
        self.is_low
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Compares the arithmetic with a model that counts each user's chunks and adds up the unused
    /// floors.
    #[test]
    fn no_user_is_refused_below_its_floor() {
        const TOTAL: u32 = 100;
        let users = [PoolUser::COMMON, PoolUser::port(0), PoolUser::port(1), PoolUser::port(7)];
        let floors = [0, 6, 20, 10];
        let mut reserve = Reserve::new(TOTAL);
        for (user, floor) in users.into_iter().zip(floors) {
            assert_eq!(reserve.set_floor(user, floor), floor);
        }
        let mut taken = [0_u32; 4];
        let mut word = 7_u64;
        let mut refused = 0;
        for _ in 0..200_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (who, takes) = ((word >> 33) as usize % 4, (word >> 40) % 5 < 3);
            let free = TOTAL - taken.iter().sum::<u32>();
            let kept: u32 = (0..4).map(|n| floors[n].saturating_sub(taken[n])).sum();
            assert!(kept <= free, "every floor can be used at any time");
            let admitted = reserve.admits(users[who], free as usize);
            assert_eq!(admitted, taken[who] < floors[who] || free > kept);
            refused += u32::from(!admitted);
            if takes && admitted {
                reserve.take(users[who]);
                taken[who] += 1;
            } else if !takes && taken[who] > 0 {
                reserve.give_back(users[who]);
                taken[who] -= 1;
            }
        }
        assert!(refused > 1000, "the pool was full often enough: {refused}");
    }

    #[test]
    fn floors_leave_a_burst_to_others_and_can_be_released() {
        let mut reserve = Reserve::new(64 + 10);
        assert_eq!(reserve.set_floor(PoolUser::port(1), 8), 8);
        assert_eq!(reserve.set_floor(PoolUser::port(2), 8), 2);
        assert_eq!(reserve.set_floor(PoolUser::port(1), 0), 0);
        assert_eq!(reserve.set_floor(PoolUser::port(2), 8), 8);
        assert_eq!(reserve.kept, 8);
        assert_eq!(Reserve::new(64).set_floor(PoolUser::port(1), 8), 0);
    }

    #[test]
    fn waiting_frames_take_their_floor_and_no_more() {
        let mut reserve = Reserve::new(84);
        reserve.set_floor(PoolUser::WAITING, 3);
        for left in (0..3).rev() {
            assert!(reserve.admits(PoolUser::WAITING, 1));
            assert!(!reserve.admits(PoolUser::WAITING, 0), "none is free");
            reserve.take(PoolUser::WAITING);
            assert_eq!(reserve.unused(PoolUser::WAITING), left);
        }
        assert!(!reserve.admits(PoolUser::WAITING, 17));
    }

    #[test]
    fn a_port_beyond_the_last_user_is_the_common_one() {
        assert_eq!(PoolUser::port(u16::MAX), PoolUser::COMMON);
        assert_ne!(PoolUser::port(1023), PoolUser::COMMON);
        assert_eq!(PoolUser::port(1024), PoolUser::COMMON, "the first without an account");
    }

    #[test]
    fn the_low_state_has_hysteresis() {
        let mut reserve = Reserve::new(90);
        assert_eq!(reserve.set_floor(PoolUser::port(0), 10), 10);
        assert!(!reserve.update_low(21));
        assert!(reserve.update_low(20));
        assert!(reserve.update_low(30));
        assert!(!reserve.update_low(31));
        assert!(!Reserve::new(0).update_low(0), "a pool without such chunks is never low");
    }
}
