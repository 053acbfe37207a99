//! bytes/promise
