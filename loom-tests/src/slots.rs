//! A slot number passes to another user while two workers swap tables and forward frames.
//!
//! Rings, grace periods, numbers and tables are the real ones. The workers are reduced to what R1
//! depends on: they apply commands, report completions, and look a number up in their table. The
//! quarantine is zero, so only the order of the steps separates the number's old user from its new
//! one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use strowger_engine::{
    Now,
    control::{
        grace_period::GracePeriods,
        slot_allocator::{Detached, Published, SlotAllocator, SlotRequest, Unnamed},
    },
    slots::{NextHop, SlotTable},
};
use strowger_frame::{
    Mark,
    ring::{Consumer, Producer, ring},
};
use strowger_wire::Slot;
use strowger_wire::scheme::F4;

use crate::{check_bounded, spawn, yield_now};

const WORKERS: usize = 2;
/// The slot number that both users have, one after the other.
const SLOT: u32 = 0;
const FIRST: Mark = Mark::new(0, 0);
const SECOND: Mark = Mark::new(1, 0);
/// The number of runs in which the second user got the slot number. Under loom, the test fails if
/// there is none.
static HANDED_ON: AtomicUsize = AtomicUsize::new(0);
/// The number of polls of a worker (`BREATHS`), and of checks by the slow path whether a step has
/// completed (`TRIES`). Both are bounded, because loom does not accept endless loops.
const BREATHS: usize = 3;
const TRIES: usize = 3;

/// Lets other threads run.
fn wait() -> bool {
    yield_now();
    false
}

enum Order {
    Table(Box<SlotTable>),
    Drop(Mark),
}

/// A worker of the engine, reduced: it applies commands and forwards one frame per poll.
struct Worker {
    orders: Consumer<Order>,
    reports: Producer<()>,
    table: Box<SlotTable>,
    has_first: bool,
}

impl Worker {
    fn apply(&mut self) {
        while let Some(order) = self.orders.pop() {
            match order {
                Order::Table(table) => self.table = table,
                Order::Drop(mark) => self.has_first &= mark != FIRST,
            }
            self.reports.push(()).expect("a place for each");
        }
    }

    /// The destination of a frame whose label contains the slot number.
    fn forward(&self) -> Option<Mark> {
        match self.table.lookup(u64::from(SLOT)).next_hop() {
            NextHop::Neighbour(mark) if mark != FIRST || self.has_first => Some(mark),
            _ => None,
        }
    }
}

/// The state of the slow path.
struct Control {
    numbers: SlotAllocator,
    grace_periods: GracePeriods,
    orders: Vec<Producer<Order>>,
    reports: Vec<Consumer<()>>,
}

impl Control {
    fn command_all(&mut self, order: impl Fn() -> Order) {
        for worker in 0..WORKERS {
            assert!(self.orders[worker].push(order()).is_ok(), "a place for each");
            self.grace_periods.note_given(worker);
        }
    }

    fn publish_tables(&mut self) {
        let leads = self.numbers.targets();
        let exit = |slot| match leads.get(&slot) {
            Some(strowger_engine::control::slot_allocator::Target::User(mark)) => {
                NextHop::Neighbour(*mark)
            }
            _ => NextHop::Drop(strowger_engine::discard::Discard::SlotGone),
        };
        self.command_all(|| {
            Order::Table(Box::new(SlotTable::new(&F4, 15, exit).expect("a table")))
        });
    }

    /// Reads the completions. Returns whether all workers have completed the step.
    fn has_passed<T>(
        &mut self,
        awaited: &strowger_engine::control::grace_period::Barrier<T>,
    ) -> bool {
        for worker in 0..WORKERS {
            while self.reports[worker].pop().is_some() {
                self.grace_periods.note_completed(worker);
            }
        }
        self.grace_periods.has_passed(awaited)
    }
}

fn two_workers() -> (Control, Vec<Worker>) {
    let mut control = Control {
        numbers: SlotAllocator::new(15),
        grace_periods: GracePeriods::new(WORKERS),
        orders: Vec::new(),
        reports: Vec::new(),
    };
    let wish = SlotRequest { slot: Some(Slot::new(SLOT)), ..SlotRequest::default() };
    let given = control.numbers.allocate(wish, FIRST, Now(1)).expect("free");
    assert!(matches!(control.numbers.publish(given, Now(1)), Published::Now));
    let workers = (0..WORKERS)
        .map(|_| {
            let (orders, orders_taken) = ring(4);
            let (reports_given, reports) = ring(4);
            control.orders.push(orders);
            control.reports.push(reports);
            let exit = |slot| {
                if slot == Slot::new(SLOT) {
                    NextHop::Neighbour(FIRST)
                } else {
                    NextHop::Drop(strowger_engine::discard::Discard::EmptySlot)
                }
            };
            let table = Box::new(SlotTable::new(&F4, 15, exit).expect("a table"));
            Worker { orders: orders_taken, reports: reports_given, table, has_first: true }
        })
        .collect();
    (control, workers)
}

/// Takes the number from the first user and gives it to the second. Before each step, all workers
/// must have completed the previous one; otherwise the function gives up.
///
/// Sets `issued` to 1 when labels that mean the second user may exist.
fn hand_on(mut control: Control, issued: &AtomicUsize) {
    let withdrawn = control.numbers.withdraw(FIRST).expect("it has it");
    control.publish_tables();
    let informed = control.grace_periods.wait_for_all(control.numbers.inform(withdrawn));
    if !(0..TRIES).any(|_| control.has_passed(&informed) || wait()) {
        return;
    }
    let unnamed = Unnamed::after(control.grace_periods.pass(informed).expect("seen above"));
    let leaving = *unnamed.leaving().first().expect("the first");
    control.command_all(|| Order::Drop(leaving));
    let unnamed = control.grace_periods.wait_for_all(unnamed);
    if !(0..TRIES).any(|_| control.has_passed(&unnamed) || wait()) {
        return;
    }
    let detached = Detached::after(control.grace_periods.pass(unnamed).expect("seen above"));
    control.numbers.quarantine(detached, Now(2), 0);
    for rested in control.numbers.out_of_quarantine(Now(2)) {
        control.numbers.free(rested);
    }
    let wish = SlotRequest { slot: Some(Slot::new(SLOT)), ..SlotRequest::default() };
    let given = control.numbers.allocate(wish, SECOND, Now(2)).expect("its quarantine is over");
    assert!(matches!(control.numbers.publish(given, Now(2)), Published::Now));
    // From here on, a label may contain the number and mean the second user.
    HANDED_ON.fetch_add(1, Relaxed);
    issued.store(1, Relaxed);
    control.publish_tables();
}

#[test]
fn a_number_never_leads_to_its_old_user_once_labels_mean_the_new_one() {
    check_bounded(2, || {
        let (control, workers) = two_workers();
        // Represents the delivery of the label by the network. It is an atomic of the standard
        // library, which orders nothing in the model.
        let issued = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let issued = issued.clone();
                spawn(move || {
                    for _ in 0..BREATHS {
                        wait();
                        worker.apply();
                        // The label was issued before its frame is switched.
                        let means_second = issued.load(Relaxed) == 1;
                        let to = worker.forward();
                        assert!(
                            !(means_second && to == Some(FIRST)),
                            "R1: it leaves by a slot that its label did not name"
                        );
                    }
                    worker
                })
            })
            .collect();
        hand_on(control, &issued);
        for thread in threads {
            drop(thread.join().expect("no panic"));
        }
    });
    let handed_on = HANDED_ON.load(Relaxed);
    eprintln!("the number was handed on {handed_on} times");
    #[cfg(loom)]
    assert!(handed_on > 0);
}
