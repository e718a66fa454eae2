//! TCP against itself over a bad wire in virtual time, scripted segments, and hostile input.

mod flow;
mod hostile;
mod inputs;
mod scripts;
mod sim;
mod transfers;
