"""The particle world: nine tasks in which agents cover, chase, push, deceive and talk."""
