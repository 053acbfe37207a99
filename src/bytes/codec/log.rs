//! bytes/codec/log
