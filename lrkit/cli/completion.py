"""stub"""


def run_completion(words: list[str]) -> int:
    return 0


def print_candidates(words: list[str]) -> int:
    return 0
