//! `dbmount`. 
fn main() {}
