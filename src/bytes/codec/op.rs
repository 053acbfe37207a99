//! bytes/codec/op
