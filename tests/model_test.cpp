int main_is_in_gtest;
