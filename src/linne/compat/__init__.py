"""The command lines of programs that people have scripts for, kept working and corrected; one package a program."""
