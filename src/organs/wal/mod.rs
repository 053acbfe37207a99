//! stub for type checks only
use crate::io::{Disk, File};
use crate::words::error::Result;
use crate::words::id::Lsn;
use crate::words::record::Op;
use std::sync::Arc;
#[derive(Debug)]
pub struct Wal;
pub struct WalOptions {
    pub segment_bytes: u64,
}
pub struct TornTail {
    pub file: String,
    pub offset: u64,
    pub bytes: u64,
    pub ambiguous: bool,
}
pub struct Scan {
    pub last_lsn: Lsn,
    pub last_batch: u64,
    pub clean: bool,
    pub torn: Option<TornTail>,
    pub ops: u64,
    pub bytes: u64,
    pub segments: u64,
}
pub fn file_name(_: u64) -> String {
    String::new()
}
pub fn replay(
    _: &dyn Disk,
    _: [u8; 16],
    _: Lsn,
    _: &mut dyn FnMut(Op) -> Result<()>,
) -> Result<Scan> {
    unimplemented!()
}
impl Wal {
    pub fn open(_: Arc<dyn Disk>, _: [u8; 16], _: Scan, _: WalOptions) -> Result<Wal> {
        Ok(Wal)
    }
    pub fn append(&mut self, _: &[(Op, Arc<[u8]>)]) -> Result<Vec<u64>> {
        unimplemented!()
    }
    pub fn segment_file(&self) -> (u64, Arc<dyn File>) {
        unimplemented!()
    }
    pub fn sync(&mut self) -> Result<()> {
        Ok(())
    }
    pub fn mark_acked(&mut self) {}
    pub fn rotate(&mut self) -> Result<()> {
        Ok(())
    }
    pub fn reclaim(&mut self, _: Lsn) -> Result<u64> {
        Ok(0)
    }
    pub fn unapplied_bytes(&self) -> u64 {
        0
    }
    pub fn bytes_written(&self) -> (u64, u64) {
        (0, 0)
    }
    pub fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
