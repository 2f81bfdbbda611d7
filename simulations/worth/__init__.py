"""`archipel plan --worth`: is privacy worth it in a study?

It is asked of synthetic patients before anybody's are read.

question.py        what the researcher wants to know;  answer.py  what is answered
weigh.py           the work, part by part
worlds.py          variants of a study, trained in made-up worlds;  synthetic.py  what a world assumes
search.py          better settings;  epsilon_search.py  the cheapest epsilon
verdict.py         the answer in a sentence;  tables.py  in the terminal
"""
