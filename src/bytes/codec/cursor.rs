//! bytes/codec/cursor
