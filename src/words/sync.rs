//! Locks of the commit protocol, by one name: parking_lot's, or, under `--cfg shuttle`, those of the model
//! checker that tries schedules (`tools/schedules`). Both have the same face here.
//!
//! Only what the protocol and its tests need stands under the checker; other locks are held for a few
//! lines and never while a lock of these is taken.

#[cfg(not(shuttle))]
pub use parking_lot::{Condvar, Mutex, MutexGuard as Guard};

#[cfg(shuttle)]
pub use modelled::{Condvar, Guard, Mutex};

/// Lets others go on, for about so long.
pub fn pause(time: std::time::Duration) {
    #[cfg(not(shuttle))]
    std::thread::sleep(time);
    #[cfg(shuttle)]
    {
        let _ = time;
        shuttle::thread::yield_now();
    }
}

#[cfg(shuttle)]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    /// parking_lot's face on shuttle's lock.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// Empty only while a condition is waited for. With its lock, for a wait that is over by itself.
    #[derive(Debug)]
    pub struct Guard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>, &'a shuttle::sync::Mutex<T>);

    impl<'a, T> Guard<'a, T> {
        fn of(lock: &'a shuttle::sync::Mutex<T>) -> Guard<'a, T> {
            Guard(Some(lock.lock().unwrap_or_else(PoisonError::into_inner)), lock)
        }
    }

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> Guard<'_, T> {
            Guard::of(&self.0)
        }

        pub fn try_lock(&self) -> Option<Guard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(Guard(Some(guard), &self.0)),
                Err(TryLockError::Poisoned(guard)) => {
                    Some(Guard(Some(guard.into_inner()), &self.0))
                }
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            match &self.0 {
                Some(guard) => guard,
                None => unreachable!("a guard is used while it waits"),
            }
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            match &mut self.0 {
                Some(guard) => guard,
                None => unreachable!("a guard is used while it waits"),
            }
        }
    }

    /// parking_lot's face on shuttle's condition. Time is no part of a schedule: what waits for a moment gives
    /// others a turn, which is any time that a moment may take, and what waits long waits for ever.
    #[derive(Debug, Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    /// How a wait with a timeout ended.
    pub struct Waited;

    impl Waited {
        pub fn timed_out(&self) -> bool {
            true
        }
    }

    impl Condvar {
        pub fn new() -> Condvar {
            Condvar::default()
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        pub fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            if let Some(inner) = guard.0.take() {
                guard.0 = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
            }
        }

        pub fn wait_for<T>(&self, guard: &mut Guard<'_, T>, _: Duration) -> Waited {
            guard.0 = None;
            shuttle::thread::yield_now();
            *guard = Guard::of(guard.1);
            Waited
        }

        pub fn wait_while_for<T>(
            &self,
            guard: &mut Guard<'_, T>,
            mut holds: impl FnMut(&mut T) -> bool,
            _: Duration,
        ) {
            while holds(&mut **guard) {
                self.wait(guard);
            }
        }
    }
}
