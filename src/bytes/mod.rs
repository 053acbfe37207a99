//! Floor 2, bytes: encodings and the promise. Nothing here touches a file.

pub mod codec;
pub mod promise;
