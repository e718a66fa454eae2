//! TCP against itself over a bad wire in virtual time, scripted segments, and hostile input.

mod flow;
mod hostile;
mod scripts;
mod sim;
mod transfers;
