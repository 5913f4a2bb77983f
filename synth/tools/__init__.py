"""Tools for the teacher's dialogs: functions mined from source code and run, files that programs read and write."""
