//! pure/topk
