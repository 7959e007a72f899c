//! Which of a pool's free chunks are kept for whom. Each port has a floor that no other user can
//! use up; what is free beyond all floors is for everybody. It counts, and never touches memory.
//!
//! The scheme is that of shared packet buffers in switches: a reserved minimum for each port, the rest
//! shared. A chunk counts for the user that took it until it is back in the pool, whoever holds
//! it meanwhile.

/// Chunks of a class that no floor may take: a burst, so that a pool that is too small for all floors
/// still serves what has none.
const SHARED_MIN: u32 = crate::BURST_MAX as u32;

/// Accounts of one pool: two of its own, and one for each port number.
const USERS_MAX: usize = 2 + 1024;

/// On whose behalf chunks are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUser(u16);

impl PoolUser {
    /// No port's: it has no floor.
    pub const COMMON: Self = Self(0);
    /// Frames that wait at exits that are blocked. It has a limit, and all of it is kept for it.
    pub const WAITING: Self = Self(1);

    /// The port with this number. Ports with numbers from 1,024 on have no floor.
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
    /// Of [`ChunkClass::Train`](crate::ChunkClass::Train).
    pub trains: u32,
    /// Of [`ChunkClass::Single`](crate::ChunkClass::Single).
    pub singles: u32,
}

/// What the queue of one exit may keep of the memory for waiting frames ([`Pool::park`]). A queue that
/// drains may take all of it, as far as it leaves as much to others; one that does not leaves a part
/// free for those that do.
///
/// [`Pool::park`]: crate::Pool::park
#[derive(Debug)]
pub struct QueueShare {
    /// Frames that the exit has let go lately: so many of those that wait are about to leave, too.
    drains: usize,
    /// Chunks of each class that are left to queues that drain, but no more than half of them.
    spared: u32,
    /// Frames of the queue that have settled.
    pub(crate) held: usize,
    /// Frames that gave way: their chunks are free soon.
    pub(crate) dropped: usize,
}

impl QueueShare {
    /// For a queue that has let `drains` frames go lately. `spared` chunks of each class, but no more than
    /// half of what there is, are kept for frames that are about to leave.
    pub fn new(drains: usize, spared: u32) -> Self {
        Self { drains, spared, held: 0, dropped: 0 }
    }

    /// How many chunks of a class the queue's next frame has to leave free.
    pub(crate) fn leaves(&self, reserve: &Reserve) -> usize {
        let half = reserve.floor(PoolUser::WAITING) / 2;
        if self.held < self.drains { 0 } else { self.spared.min(half) as usize }
    }
}

/// What one user has of one class.
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

/// The users of one class of chunks.
pub(crate) struct Reserve {
    total: u32,
    shares: Box<[Share]>,
    /// Free chunks that are kept: the unused parts of all floors.
    kept: u32,
    floors: u32,
    is_low: bool,
}

impl Reserve {
    pub(crate) fn new(total: u32) -> Self {
        let shares = vec![Share::default(); USERS_MAX].into_boxed_slice();
        Self { total, shares, kept: 0, floors: 0, is_low: false }
    }

    /// Sets a user's floor, and says what it became: less than `floor` where the pool is too
    /// small.
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

    /// Chunks that this user could still take within its floor, if they were free.
    pub(crate) fn unused(&self, user: PoolUser) -> u32 {
        self.shares[user.index()].unused()
    }

    fn floor(&self, user: PoolUser) -> u32 {
        self.shares[user.index()].floor
    }

    /// Whether few of the chunks that are kept for nobody are left: from an eighth of them on, until
    /// it is a quarter again.
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

    /// A pool's arithmetic, by brute force: each user's chunks, and the sum of unused floors.
    #[test]
    fn no_user_is_refused_below_its_floor_whatever_the_others_take() {
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
            assert!(kept <= free, "every floor can be filled at any time");
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
    fn floors_leave_a_burst_to_others_and_can_be_given_up() {
        let mut reserve = Reserve::new(64 + 10);
        assert_eq!(reserve.set_floor(PoolUser::port(1), 8), 8);
        assert_eq!(reserve.set_floor(PoolUser::port(2), 8), 2);
        assert_eq!(reserve.set_floor(PoolUser::port(1), 0), 0);
        assert_eq!(reserve.set_floor(PoolUser::port(2), 8), 8);
        assert_eq!(reserve.kept, 8);
        assert_eq!(Reserve::new(64).set_floor(PoolUser::port(1), 8), 0);
    }

    #[test]
    fn waiting_frames_take_what_is_theirs_and_no_more() {
        let mut reserve = Reserve::new(84);
        reserve.set_floor(PoolUser::WAITING, 3);
        for left in (0..3).rev() {
            assert!(reserve.admits(PoolUser::WAITING, 20));
            reserve.take(PoolUser::WAITING);
            assert_eq!(reserve.unused(PoolUser::WAITING), left);
        }
        assert!(!reserve.admits(PoolUser::WAITING, 17));
    }

    #[test]
    fn a_number_without_a_user_has_the_common_one() {
        assert_eq!(PoolUser::port(u16::MAX), PoolUser::COMMON);
        assert_ne!(PoolUser::port(1023), PoolUser::COMMON);
    }

    #[test]
    fn scarcity_begins_low_and_ends_higher() {
        let mut reserve = Reserve::new(90);
        assert_eq!(reserve.set_floor(PoolUser::port(0), 10), 10);
        assert!(!reserve.update_low(21));
        assert!(reserve.update_low(20));
        assert!(reserve.update_low(30));
        assert!(!reserve.update_low(31));
        assert!(!Reserve::new(0).update_low(0), "a pool without such chunks wants none");
    }
}
