"""Workers of an embedded Ray that are forked: importing Ray takes a process 0.4 s, being forked 10 ms."""
