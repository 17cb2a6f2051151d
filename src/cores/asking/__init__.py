"""Asking: picture to features, prefix cache, answers (generated or teacher-forced), masks. One way for everybody."""
