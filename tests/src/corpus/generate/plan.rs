//! What an actor does, worked out beforehand: when each thing is opened and closed.

use super::actor::{Actor, What};

/// One thing's life, in minutes since the start; what is never closed has no end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// What it is.
    pub what: What,
    /// Opened.
    pub from: f64,
    /// Closed.
    pub to: f64,
    /// Leaked.
    pub leaked: bool,
    /// Data moves on it as long as it is open, where it is a connection.
    pub moves: bool,
    /// Number of the stack that opened it.
    pub stack: Option<u32>,
}

/// xorshift64*: the same numbers on every run.
pub struct Numbers(u64);

impl Numbers {
    /// By a name: each case has its own.
    pub fn of(name: &str) -> Self {
        let seed = name.bytes().fold(88_172_645_463_325_252_u64, |s, b| {
            (s ^ u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        Self(seed | 1)
    }

    /// From 0 up to 1, never 0 itself.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with this mean: what comes at random, and lasts at random.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }
}

/// Everything that an actor opens within so many minutes, by a stack of this number.
pub fn lives(actor: &Actor, stack: Option<u32>, minutes: f64, numbers: &mut Numbers) -> Vec<Life> {
    let mut lives = Vec::new();
    match *actor {
        Actor::Leak { what, every, from, until, batch, moves, .. } => {
            let mut at = from;
            while at < minutes.min(until) {
                let one = Life { what, from: at, to: f64::INFINITY, leaked: true, moves, stack };
                lives.extend((0..batch).map(|_| one));
                // Between half and one and a half of the mean.
                at += every * (0.5 + numbers.unit());
            }
        }
        Actor::Requests { what, rate, life, swing, period, ramp, from, moves, .. } => {
            let most = rate * (1.0 + swing);
            let mut at = from;
            loop {
                at += numbers.exponential(1.0 / most);
                if at >= minutes {
                    break;
                }
                // Thinned: those that the rate of the moment does not have are left out.
                if numbers.unit() * most < rate_at(at - from, rate, swing, period, ramp) {
                    let to = at + numbers.exponential(life);
                    lives.push(Life { what, from: at, to, leaked: false, moves, stack });
                }
            }
        }
        Actor::Pool { what, cap, every, from, replaced, moves, .. } => {
            for n in 0..cap {
                let at = from + f64::from(n) * every;
                lives.push(Life { what, from: at, to: f64::INFINITY, leaked: false, moves, stack });
            }
            let mut at = from + f64::from(cap) * every + replaced;
            let mut oldest = 0;
            while replaced > 0.0 && at < minutes {
                lives[oldest].to = at;
                lives.push(Life { what, from: at, to: f64::INFINITY, leaked: false, moves, stack });
                (oldest, at) = (oldest + 1, at + replaced);
            }
        }
        Actor::Burst { what, count, every, stays, from, moves, .. } => {
            let mut at = from;
            while at < minutes {
                let one = Life { what, from: at, to: at + stays, leaked: false, moves, stack };
                lives.extend((0..count).map(|_| one));
                at += every;
            }
        }
    }
    lives.retain(|l| l.from < minutes);
    lives
}

/// Arrivals per minute, so long after the first.
fn rate_at(since: f64, rate: f64, swing: f64, period: f64, ramp: f64) -> f64 {
    let swung = rate * (1.0 + swing * (since / period * std::f64::consts::TAU).sin());
    if ramp == 0.0 {
        return swung;
    }
    let share = (since / ramp).min(3.0 - since / ramp).clamp(0.0, 1.0);
    swung * share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_at(lives: &[Life], at: f64) -> usize {
        lives.iter().filter(|l| l.from <= at && at < l.to).count()
    }

    #[test]
    fn a_pool_fills_and_keeps_its_size_while_members_are_replaced() {
        let pool = Actor::Pool {
            what: What::Socket,
            by: None,
            cap: 10,
            every: 2.0,
            from: 5.0,
            replaced: 3.0,
            moves: true,
        };
        let lives = lives(&pool, None, 100.0, &mut Numbers::of("x"));
        assert_eq!(open_at(&lives, 4.0), 0);
        assert_eq!(open_at(&lives, 9.5), 3);
        assert!((30..100).all(|t| open_at(&lives, f64::from(t) + 0.5) == 10));
        assert!(lives.len() > 20);
    }

    #[test]
    fn requests_are_as_many_as_rate_times_life_and_the_same_each_time() {
        let actor = Actor::Requests {
            what: What::File,
            by: None,
            rate: 40.0,
            life: 2.0,
            swing: 0.0,
            period: 60.0,
            ramp: 0.0,
            from: 0.0,
            moves: true,
        };
        let first = lives(&actor, None, 2000.0, &mut Numbers::of("x"));
        assert_eq!(first, lives(&actor, None, 2000.0, &mut Numbers::of("x")));
        let mean = (20..2000).map(|t| open_at(&first, f64::from(t)) as f64).sum::<f64>() / 1980.0;
        assert!((78.0..82.0).contains(&mean), "{mean}, where 80 are expected");
    }

    #[test]
    fn a_load_that_rises_falls_again_and_a_leak_does_not() {
        assert_eq!(rate_at(30.0, 10.0, 0.0, 1.0, 60.0), 5.0);
        assert_eq!(rate_at(90.0, 10.0, 0.0, 1.0, 60.0), 10.0);
        assert_eq!(rate_at(200.0, 10.0, 0.0, 1.0, 60.0), 0.0);
        let leak = Actor::Leak {
            what: What::Pipe,
            by: None,
            every: 2.0,
            from: 10.0,
            until: 50.0,
            batch: 2,
            moves: false,
        };
        let lives = lives(&leak, Some(3), 100.0, &mut Numbers::of("x"));
        assert!((30..55).contains(&lives.len()) && lives[0].from == 10.0);
        assert!(lives.iter().all(|l| l.leaked && l.to.is_infinite() && l.stack == Some(3)));
    }
}
