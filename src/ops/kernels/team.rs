//! Threads that go through the loops of one step together.
//!
//! A decoding step is some hundred loops of a few to 200 µs with next to nothing between them. A pool's threads may fall asleep
//! between two of them, and take from each other what lies apart in memory. Here they stay awake from the first loop of
//! a step to its last. One thread leads: it runs what lies between the loops, and hands out each loop in parts. Every
//! thread begins with the same share of a loop in every step, so that it reads memory in one long run and finds keys and
//! values that it read before in its cache, and then helps the others with theirs, part by part. Nobody waits for a thread
//! that has not come: who leads alone does all.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};

use super::share::Shared;

/// Most parts of a loop
const PARTS: usize = 0xffff;
/// Multiply-adds of a loop that a thread does in a few µs
const ALONE_BELOW: usize = 1 << 17;
/// Rounds of waiting, some 10 µs, after which a thread lets others have its processor
const PATIENCE: u32 = 1 << 9;

/// What runs the loops of a step
#[derive(Clone, Copy)]
pub struct Team<'a> {
    /// With the leader's place; none where the caller is alone
    board: Option<(&'a Board, usize)>,
}

impl Team<'_> {
    /// The calling thread and nobody else
    pub fn alone() -> Self {
        Self { board: None }
    }

    /// Runs `work` on a thread of the pool, whose other threads help with its loops as they come; alone where its largest loop
    /// has few multiply-adds
    pub fn gather<R: Send>(largest: usize, work: impl FnOnce(&Team) -> R + Send) -> R {
        let threads = rayon::current_num_threads();
        if threads == 1 || largest < ALONE_BELOW {
            return work(&Team::alone());
        }
        let board = Board::new(threads);
        rayon::scope(|scope| {
            let Some(me) = board.enter() else { return work(&Team::alone()) };
            let _end = End(&board);
            for _ in 1..threads {
                scope.spawn(|_| board.help());
            }
            work(&Team { board: Some((&board, me)) })
        })
    }

    /// Runs `work` on parts of 0..n that cover it; `work` must neither loop with a team nor with the pool
    pub fn each(&self, n: usize, work: impl Fn(Range<usize>) + Sync) {
        match self.board {
            Some((board, me)) if n > 1 => board.run(me, n, &work),
            _ => work(0..n),
        }
    }

    /// [`Self::each`] over blocks of `len` numbers: `work(block index, block)`
    pub fn each_block<T: Send>(&self, out: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let n = out.len();
        let out = Shared::new(out);
        self.each(n.div_ceil(len), |blocks| {
            for i in blocks {
                // SAFETY: blocks do not overlap, and each is in one part
                work(i, unsafe { out.range(i * len, len.min(n - i * len)) });
            }
        });
    }
}

/// A loop
struct Job<'a> {
    n: usize,
    parts: usize,
    work: &'a (dyn Fn(Range<usize>) + Sync),
}

impl Job<'_> {
    fn run(&self, part: usize) {
        (self.work)(part * self.n / self.parts..(part + 1) * self.n / self.parts);
    }
}

/// A thread's parts of the loop that is running: the loop's number, the end and the beginning of what is left, as 32, 16 and
/// 16 bits. In a cache line of its own, with a neighbour for the processor's prefetching
#[repr(align(128))]
struct Member {
    left: AtomicU64,
    /// Whether the thread is on the team: work of its own pool that it runs while it waits must not join again
    inside: AtomicBool,
}

impl Member {
    fn offer(&self, number: u32, parts: Range<usize>) {
        let left = u64::from(number) << 32 | (parts.end as u64) << 16 | parts.start as u64;
        self.left.store(left, Release);
    }

    /// The number of the loop that was offered last
    fn number(&self) -> u32 {
        (self.left.load(Acquire) >> 32) as u32
    }

    /// One of the parts of loop `number` that are left
    fn claim(&self, number: u32) -> Option<usize> {
        let next = |left: u64| {
            let (begin, end) = (left & 0xffff, left >> 16 & 0xffff);
            ((left >> 32) as u32 == number && begin < end).then_some(left + 1)
        };
        self.left.fetch_update(Acquire, Acquire, next).ok().map(|left| (left & 0xffff) as usize)
    }
}

/// Where the leader hands out loops
struct Board {
    members: Vec<Member>,
    /// The loop that is running; whoever holds a part of it may look
    job: AtomicPtr<Job<'static>>,
    /// Parts that are done
    done: AtomicUsize,
    /// No loop will come
    over: AtomicBool,
}

impl Board {
    fn new(threads: usize) -> Self {
        let member = |_| Member { left: AtomicU64::new(0), inside: AtomicBool::new(false) };
        Self {
            members: (0..threads).map(member).collect(),
            job: AtomicPtr::new(ptr::null_mut()),
            done: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// The place of this thread, which is then taken
    fn enter(&self) -> Option<usize> {
        let me = rayon::current_thread_index()?;
        let free = !self.members.get(me)?.inside.swap(true, Relaxed);
        free.then_some(me)
    }

    /// Works on every loop until the end
    fn help(&self) {
        let Some(me) = self.enter() else { return };
        let mut number = 0;
        loop {
            let mut wait = Wait::default();
            while self.members[me].number() == number {
                if self.over.load(Acquire) {
                    return;
                }
                wait.moment();
            }
            number = self.members[me].number();
            self.work(number, me);
        }
    }

    /// Runs a loop to its end
    fn run(&self, me: usize, n: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        let count = self.members.len();
        let parts = n.min(PARTS);
        let job = Job { n, parts, work };
        let number = self.members[me].number() + 1;
        self.done.store(0, Relaxed);
        // The lifetime is forgotten: `Finish` keeps the job where it is until no part of it is left
        self.job.store(ptr::from_ref(&job).cast_mut().cast(), Relaxed);
        for (i, member) in self.members.iter().enumerate() {
            member.offer(number, i * parts / count..(i + 1) * parts / count);
        }
        let _finish = Finish { board: self, number, parts };
        self.work(number, me);
    }

    /// Takes parts of a loop until none is left, first its own
    fn work(&self, number: u32, me: usize) {
        // Counted together: the counter is in the other threads' way
        let mut done = Done { counter: &self.done, parts: 0 };
        for i in 0..self.members.len() {
            let member = &self.members[(me + i) % self.members.len()];
            while let Some(part) = member.claim(number) {
                done.parts += 1;
                // SAFETY: loop `number` lives until `done` has counted this part. Its address was stored before its parts
                // were offered, and the next one's is stored after its end
                unsafe { &*self.job.load(Relaxed) }.run(part);
            }
        }
    }
}

/// Counts parts, also one that panicked
struct Done<'a> {
    counter: &'a AtomicUsize,
    parts: usize,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.counter.fetch_add(self.parts, Release);
    }
}

/// Waits until all parts of a loop are done
struct Finish<'a> {
    board: &'a Board,
    number: u32,
    parts: usize,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What nobody has begun is given up
            for member in &self.board.members {
                while member.claim(self.number).is_some() {
                    self.board.done.fetch_add(1, Release);
                }
            }
        }
        let mut wait = Wait::default();
        while self.board.done.load(Acquire) < self.parts {
            wait.moment();
        }
    }
}

/// Sends the helpers home
struct End<'a>(&'a Board);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Release);
    }
}

/// Waiting without sleep
#[derive(Default)]
struct Wait(u32);

impl Wait {
    fn moment(&mut self) {
        if self.0 < PATIENCE {
            self.0 += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
    }

    /// Loops of many sizes, each upon what the one before it left
    fn sums(team: &Team) -> Vec<f32> {
        let mut x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        for round in 1..300 {
            let before = x.clone();
            team.each_block(&mut x, 1 + round * 7 % 90, |i, x| {
                let first = i * (1 + round * 7 % 90);
                for (at, x) in x.iter_mut().enumerate() {
                    *x = (*x + before[999 - first - at]) * 0.5;
                }
            });
        }
        x
    }

    #[test]
    fn every_loop_sees_what_the_one_before_it_wrote() {
        let alone = sums(&Team::alone());
        for threads in [1, 2, 3, 8] {
            for _ in 0..20 {
                assert_eq!(pool(threads).install(|| Team::gather(usize::MAX, sums)), alone, "{threads} threads");
            }
        }
    }

    #[test]
    fn every_number_is_in_one_part() {
        pool(3).install(|| {
            Team::gather(usize::MAX, |team| {
                for n in (0..200).chain([5000]) {
                    let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                    team.each(n, |part| {
                        for i in part {
                            seen[i].fetch_add(1, Relaxed);
                        }
                    });
                    assert!(seen.iter().all(|seen| seen.load(Relaxed) == 1), "{n}");
                }
            });
        });
    }

    #[test]
    fn teams_of_one_pool_do_not_wait_for_each_other() {
        let alone = sums(&Team::alone());
        let pool = pool(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(pool.install(|| Team::gather(usize::MAX, sums)), alone);
                    }
                });
            }
        });
        // Nor inside the pool's own work, where whoever waits may be asked to help the team that it leads
        let all = pool.install(|| {
            use rayon::prelude::*;
            (0..16)
                .into_par_iter()
                .map(|_| {
                    Team::gather(usize::MAX, |team| {
                        rayon::join(std::thread::yield_now, std::thread::yield_now);
                        sums(team)
                    })
                })
                .collect::<Vec<_>>()
        });
        assert!(all.iter().all(|sums| *sums == alone));
    }

    #[test]
    fn a_part_that_panics_ends_the_team() {
        for culprit in [0, 57, 99] {
            let run = || {
                Team::gather(usize::MAX, |team| {
                    team.each(100, |part| assert!(!part.contains(&culprit), "on purpose"));
                    team.each(100, |_| ());
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(|| pool(3).install(run))).is_err());
        }
    }
}
