//! bytes/codec/segment
